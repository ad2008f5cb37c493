"""What Ray Tune does with the referee's jobs: planted crashes, silence and divergence for real."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ray.tune.trainable.function_trainable import wrap_function

from lmray.config import Budget, Evaluation, Execution
from lmray.dataset import open_splits
from lmray.distributed.asha import cause
from lmray.distributed.trial import job
from lmray.distributed.tune import run_audit, run_sweep
from lmray.errors import LmrayError
from lmray.runs.run_directory import RunDirectory
from lmray.sweeps.decisions.asha import TO_THE_END, Asha
from lmray.sweeps.ledger import Event, Ledger, read_events
from lmray.sweeps.space import Space
from lmray.sweeps.sweep_directory import claim
from tests.small import small_run

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

PROMOTE = Asha(20 * 64, 2, "promote")


def space(tokens: Path, rates: list[float], asha: Asha, *, steps: int = 60) -> Space:
    base = small_run(
        tokens,
        budget=Budget(tokens=steps * 64),
        evaluation=Evaluation(interval_tokens=20 * 64, prefix_tokens=256),
        execution=Execution(device="cpu", threads=1, checkpoint_interval_steps=1000),
    )
    return Space("test", "", base, {"optim.lr": rates}, (0,), asha)


class Sweep:
    """A sweep of a space beneath a folder; its trials by learning rate."""

    def __init__(self, question: Space, folder: Path) -> None:
        self.space, self.runs = question, folder / "runs"
        self.splits = open_splits(question.base.data.tokens)
        self.directory = folder / "sweeps" / "test"
        claim(self.directory, question, self.splits.digest)
        self.trials = {t.changes["optim.lr"]: t for t in question.trials(self.splits.digest)}

    def go(self) -> dict[float, str]:
        stands = run_sweep(self.space, self.splits, self.directory, self.runs)
        return {rate: stands[trial.id] for rate, trial in self.trials.items()}

    def events(self, rate: float) -> list[Event]:
        found = read_events(self.directory / "ledger.jsonl")
        return [event for event in found if event.trial == self.trials[rate].id]

    def run(self, rate: float) -> RunDirectory:
        return RunDirectory(self.runs / self.trials[rate].id)


def losses(run: RunDirectory) -> list[float]:
    return [record["loss"] for record in run.records("validation")]


def test_a_paused_trial_goes_on_from_its_rung_and_has_the_curve_of_one_never_paused(
    small_dataset: Path, tmp_path: Path
):
    rates = [1e-5, 1e-2, 1e-3, 3e-3]
    sweep = Sweep(space(small_dataset, rates, PROMOTE), tmp_path / "promote")
    stands = sweep.go()
    assert stands[1e-2] == "done"
    assert set(stands.values()) == {"done", "stopped"}
    whole = Sweep(space(small_dataset, rates, TO_THE_END), tmp_path / "whole")
    assert set(whole.go().values()) == {"done"}
    assert {e.kind for rate in rates for e in whole.events(rate)} == {"started", "done"}
    assert losses(sweep.run(1e-2)) == losses(whole.run(1e-2))
    assert len(sweep.run(1e-2).facts["lives"]) <= 3
    stopped = next(rate for rate, stand in stands.items() if stand == "stopped")
    left = sweep.events(stopped)[-1].facts["step"]
    assert sweep.run(stopped).status == "stopped"
    assert [p.name for p in sweep.run(stopped).checkpoints.iterdir()][-1].endswith(f"{left:08d}")

    # Stopped trials can be trained to their end; nothing that was decided changes.
    chosen = [sweep.trials[stopped].id]
    run_audit(sweep.space, sweep.splits, sweep.directory, sweep.runs, chosen)
    last = sweep.events(stopped)[-1]
    assert (last.kind, last.facts["status"]) == ("audited", "done")
    assert last.facts["loss"] == whole.events(stopped)[-1].facts["loss"]
    assert losses(sweep.run(stopped)) == losses(whole.run(stopped))
    before = (sweep.directory / "ledger.jsonl").read_bytes()
    run_audit(sweep.space, sweep.splits, sweep.directory, sweep.runs, chosen)
    assert sweep.go() == stands
    assert (sweep.directory / "ledger.jsonl").read_bytes() == before

    # Runs that another sweep has finished are not run again, but judged by what they wrote down.
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "runs").symlink_to(whole.runs)
    again = Sweep(space(small_dataset, rates, PROMOTE), tmp_path / "again")
    assert again.go()[1e-2] == "done"
    assert len(again.run(1e-2).facts["lives"]) == 1


def test_planted_crash_and_nan_end_as_failed_and_diverged_and_the_others_finish(
    small_dataset: Path, tmp_path: Path
):
    sweep = Sweep(space(small_dataset, [1e-5, 1e-2, 1e-3, 3e-3], PROMOTE), tmp_path)
    sweep.runs.mkdir()
    # A file where the run's directory must go: every life of this trial fails.
    (sweep.runs / sweep.trials[1e-3].id).write_text("in the way")
    # What an earlier life measured: the loss at the first rung is not finite.
    run = sweep.run(3e-3)
    run.begin(sweep.trials[3e-3].run, sweep.trials[3e-3].id, {"digest": "", "path": ""})
    run.finish("preempted", {"step": 20, "tokens": 1280, "seconds": 1.0})
    nothing = dict.fromkeys(("loss", "bits_per_byte", "perplexity"))
    where = {"kind": "validation", "scope": "prefix", "step": 20, "tokens": 1280, "seconds": 1.0}
    (run.path / "metrics.jsonl").write_text(json.dumps({**where, **nothing}) + "\n")
    assert sweep.go() == {1e-5: "stopped", 1e-2: "done", 1e-3: "failed", 3e-3: "diverged"}
    kinds = [event.kind for event in sweep.events(1e-3)]
    assert kinds == ["started", "failed", "started", "failed"]
    assert "FileExistsError" in sweep.events(1e-3)[-1].facts["error"]
    assert [e.kind for e in sweep.events(3e-3)] == ["started", "diverged"]
    assert sweep.run(3e-3).status == "diverged"
    # With the cause gone, the same sweep finishes.
    (sweep.runs / sweep.trials[1e-3].id).unlink()
    assert sweep.go()[1e-3] in ("stopped", "done")


def test_what_fails_alike_in_trial_after_trial_stops_the_sweep(small_dataset: Path, tmp_path: Path):
    sweep = Sweep(space(small_dataset, [1e-5, 1e-2, 1e-3, 3e-3], PROMOTE), tmp_path)
    sweep.runs.write_text("in the way of all")
    with pytest.raises(LmrayError, match=r"trials failed alike, 3 times: \w+Error"):
        sweep.go()
    failed = [e for e in read_events(sweep.directory / "ledger.jsonl") if e.kind == "failed"]
    assert len(failed) == 3


def test_a_retry_that_a_kill_came_before_is_made_when_the_sweep_goes_on(
    small_dataset: Path, tmp_path: Path
):
    sweep = Sweep(space(small_dataset, [1e-3], TO_THE_END, steps=20), tmp_path)
    trial, ledger = sweep.trials[1e-3], Ledger(sweep.directory / "ledger.jsonl")
    ledger.append("started", trial.id, name=trial.name, changes=trial.changes)
    ledger.append("failed", trial.id, error="OSError: planted", lost=False, saved=0)
    assert sweep.go() == {1e-3: "done"}
    assert [e.kind for e in sweep.events(1e-3)] == ["started", "failed", "started", "done"]


def test_a_trial_that_never_reports_is_timed_out(small_dataset: Path, tmp_path: Path):
    sweep = Sweep(space(small_dataset, [1e-3], Asha(20 * 64, 2, timeout_s=2.0)), tmp_path)
    # Opening a pipe that nobody writes to waits for ever.
    stuck = sweep.run(1e-3).path
    stuck.mkdir(parents=True)
    os.mkfifo(stuck / "metrics.jsonl")
    assert sweep.go() == {1e-3: "failed"}
    errors = [e.facts["error"] for e in sweep.events(1e-3) if e.kind == "failed"]
    assert len(errors) == 2
    assert errors[0].startswith("no new record in its metrics for 2 s; ")
    assert errors[0].endswith("raise asha.timeout_s")


class Used(wrap_function(job)):  # pyrefly: ignore
    """An actor whose last job's thread has not ended when the next job comes."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return False


class Slow(wrap_function(job)):  # pyrefly: ignore
    """One whose thread needs a while to end."""

    def _trainable_func(self, config: dict[str, Any]) -> None:
        super()._trainable_func(config)
        time.sleep(3)


def test_an_actor_that_cannot_be_used_again_ends_the_sweep_which_can_be_resumed(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sweep = Sweep(space(small_dataset, [1e-5, 1e-2, 1e-3], TO_THE_END, steps=20), tmp_path)
    with monkeypatch.context() as planted:
        planted.setattr("lmray.distributed.tune.job", Used)
        with pytest.raises(LmrayError, match=r"could not be used again, .*sweep resume"):
            sweep.go()
    assert set(sweep.go().values()) == {"done"}


def test_an_actor_whose_thread_takes_its_time_is_used_again(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("lmray.distributed.tune.job", Slow)
    sweep = Sweep(space(small_dataset, [1e-5, 1e-2, 1e-3], TO_THE_END, steps=20), tmp_path)
    assert set(sweep.go().values()) == {"done"}


TRACE = """Traceback (most recent call last):
  File "/a/tune.py", line {line}, in _trial
    execute()
{kind}: {message}
"""


def test_failures_are_alike_if_they_come_from_the_same_line_whatever_they_say():
    def trace(line: int = 3, kind: str = "KeyError", message: str = "") -> str:
        return cause(TRACE.format(line=line, kind=kind, message=message))

    assert trace(message="'a'") == trace(message="'b'")
    assert len({trace(), trace(line=4), trace(kind="OSError"), cause("")}) == 4
