"""What is left of a loser's checkpoints, also if the deletion is killed at any of its moments."""

import os
import shutil
import time
from pathlib import Path

import pytest
import torch

from lmray.dataset import open_splits
from lmray.errors import PreflightError
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from lmray.runs.trained import load_trained
from lmray.sweeps import losers
from lmray.sweeps.ledger import Event
from lmray.sweeps.losers import begins_anew, loser_bytes, trim
from lmray.training import checkpoint
from tests.small import small_run

EXECUTION = {"device": "cpu", "threads": 1, "checkpoint_interval_steps": 5, "keep_checkpoints": 9}
STEPS = (5, 10, 12)
"""Of the checkpoints of the run that was stopped after twelve steps."""


def stopped(tokens: Path, runs: Path) -> RunDirectory:
    """A run that left after twelve steps; of its checkpoints that of step 10 is called the best."""
    run, splits = small_run(tokens, execution=EXECUTION), open_splits(tokens)
    steps = iter(range(1, 99))
    directory = execute(
        run, splits, runs, report=lambda r: None, interrupted=lambda: next(steps) == STEPS[-1]
    )
    text = (directory.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    for number, line in enumerate(text):
        if '"prefix"' in line and '"step":5,' in line:
            assert '"loss":' in line
            text[number] = line.replace('"loss":', '"loss":9')
    (directory.path / "metrics.jsonl").write_text("".join(text))
    directory.finish("stopped", {})
    return directory


def steps(directory: RunDirectory) -> list[int]:
    return sorted(map(checkpoint.step_of, checkpoint.newest_first(directory.checkpoints)))


@pytest.fixture
def loser(small_dataset: Path, tmp_path: Path) -> RunDirectory:
    return stopped(small_dataset, tmp_path / "runs")


def test_the_best_steps_weights_stay_for_readers_and_the_run_begins_anew(
    loser: RunDirectory, small_dataset: Path, tmp_path: Path
):
    runs, name = loser.path.parent, loser.path.name
    assert steps(loser) == list(STEPS)
    assert not begins_anew(loser)
    before = load_trained(loser, "10")
    trim(runs, [name], "all")
    assert steps(loser) == list(STEPS)
    for _ in range(2):
        trim(runs, [name], "best")
        (kept,) = checkpoint.newest_first(loser.checkpoints)
        assert sorted(p.name for p in kept.iterdir()) == ["model.safetensors", "state.json"]
    after = load_trained(loser)
    assert after.step == 10
    for mine, its in zip(before.model.parameters(), after.model.parameters(), strict=True):
        assert torch.equal(mine, its)
    assert begins_anew(loser)
    with pytest.raises(PreflightError, match="keeps weights alone, and this needs the optimizer"):
        checkpoint.optimizer_tensors(kept)

    # Trained to its end it has the curve of a run that nothing was taken from.
    run, splits = small_run(small_dataset, execution=EXECUTION), open_splits(small_dataset)
    again = execute(run, splits, runs, report=lambda r: None)
    whole = execute(run, splits, tmp_path / "whole", report=lambda r: None)
    curves = [[r["loss"] for r in each.records("validation")] for each in (again, whole)]
    assert curves[0] == curves[1]
    assert again.facts["lives"][-1]["began_at_step"] == 0
    kept_all = steps(again)
    trim(runs, [name], "nothing")
    assert steps(again) == kept_all, "a run that is done is nobody's loser"


def test_nothing_leaves_the_record_alone(loser: RunDirectory):
    trim(loser.path.parent, [loser.path.name], "nothing")
    assert steps(loser) == []
    assert len(loser.records("validation")) > 2


def test_a_run_that_a_process_still_has_is_left_for_later(loser: RunDirectory):
    with loser.locked():
        trim(loser.path.parent, [loser.path.name], "nothing")
    assert steps(loser) == list(STEPS)


class Killed(BaseException):
    """kill -9, after which nothing more happens."""


@pytest.mark.parametrize("keep", ["best", "nothing"])
def test_killed_at_any_moment_nothing_that_was_to_stay_is_lost_and_the_next_call_finishes(
    loser: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: losers.Keep
):
    real = {name: getattr(os, name) for name in ("unlink", "rename", "replace", "rmdir")}
    moments = 0
    while True:
        runs = tmp_path / f"{keep}-{moments}"
        shutil.copytree(loser.path, runs / "run")
        left = [moments]

        def dies(name: str, left: list[int] = left):
            def call(*words, **named):
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return real[name](*words, **named)

            return call

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(os, name, dies(name))
            try:
                trim(runs, ["run"], keep)
            except Killed:
                finished = False
            else:
                finished = True
        run = RunDirectory(runs / "run")
        if keep == "best":
            assert load_trained(run, "10").step == 10
            assert load_trained(run).step in STEPS
        trim(runs, ["run"], keep)
        assert steps(run) == ([10] if keep == "best" else [])
        assert len(list(run.checkpoints.rglob("*.safetensors"))) == (keep == "best")
        if finished:
            break
        moments += 1
    assert moments >= 9


def test_a_damaged_best_is_passed_over(loser: RunDirectory):
    best = loser.checkpoints / "step-00000010" / "model.safetensors"
    best.write_bytes(best.read_bytes()[:-1])
    trim(loser.path.parent, [loser.path.name], "best")
    assert len(steps(loser)) == 1
    assert load_trained(loser).step in (5, 12)


def test_losers_are_who_does_not_go_on(tmp_path: Path):
    kinds = ("started", "rung", "paused", "stopped", "diverged", "failed", "done", "retried")
    events = [Event(kind, kind, {"time": 1.0}) for kind in kinds]  # pyrefly: ignore
    assert losers.losers(tmp_path, events, failed=False) == ["stopped", "diverged"]
    assert losers.losers(tmp_path, events, failed=True) == ["stopped", "diverged", "failed"]


def test_what_has_begun_again_since_it_lost_is_no_loser_until_its_audit_is_over(
    loser: RunDirectory,
):
    runs, name = loser.path.parent, loser.path.name
    now = time.time()
    before, after = Event("stopped", name, {"time": now - 99}), now + 99
    assert losers.losers(runs, [before], failed=False) == []
    assert losers.losers(runs, [Event("stopped", name, {"time": after})], failed=False) == [name]
    over = Event("audited", name, {"time": after, "status": "diverged"})
    assert losers.losers(runs, [before, over], failed=False) == [name]


def test_what_is_priced_is_what_is_left_on_disk(loser: RunDirectory):
    trim(loser.path.parent, [loser.path.name], "best")
    size = sum(path.stat().st_size for path in loser.checkpoints.rglob("*.safetensors"))
    assert loser_bytes(loser.config, "best") == pytest.approx(size, rel=0.1)
    assert loser_bytes(loser.config, "nothing") == 0
