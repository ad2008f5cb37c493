import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from lmray.config import Budget, Evaluation, Execution, Model
from lmray.dataset import open_splits
from lmray.distributed.tune import run_sweep
from lmray.errors import PreflightError
from lmray.experiments.execute import execute
from lmray.experiments.ledger import Event, read_events
from lmray.experiments.report import write_report
from lmray.experiments.run_directory import RunDirectory
from lmray.experiments.space import Asha, Space
from lmray.experiments.sweep_directory import claim
from lmray.experiments.tables import read_sweep
from tests.small import small_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

BAD, GOOD, SLOW, TOO_FAST = 1e-5, 1e-2, 1e-3, 1.0


def space(tokens: Path, rates: list[float], *, workers: int = 1, steps: int = 180) -> Space:
    base = small_run(
        tokens,
        # Deep and unclipped, so that a rate of 1 diverges.
        model=Model(vocab_size=300, context_length=16, num_layers=3, d_model=16, num_heads=2),
        budget=Budget(tokens=steps * 64),
        evaluation=Evaluation(interval_tokens=20 * 64, prefix_tokens=256),
        execution=Execution(device="cpu", workers=workers, threads=1, checkpoint_interval_steps=10),
    )
    return Space("test", "", base, {"optim.lr": rates}, (0,), Asha(20 * 64, 3))


def sweep(question: Space, tokens: Path, folder: Path) -> tuple[dict[str, str], list[Event]]:
    """Runs it; how each trial stands, by learning rate, and the ledger."""
    splits = open_splits(tokens)
    directory = folder / "sweeps" / "test"
    claim(directory, question, splits.digest)
    stands = run_sweep(question, splits, directory, folder / "runs")
    rates = {t.id: t.changes["optim.lr"] for t in question.trials(splits.digest)}
    return {rates[k]: v for k, v in stands.items()}, read_events(directory / "ledger.jsonl")


@pytest.mark.usefixtures("local_ray")
def test_bad_trials_are_stopped_the_diverged_are_results_the_best_is_done(
    small_dataset: Path, tmp_path: Path
):
    question = space(small_dataset, [BAD, SLOW, GOOD, 3e-3, 2e-5, 1e-4, TOO_FAST])
    stands, events = sweep(question, small_dataset, tmp_path)
    assert stands[GOOD] == "done"
    assert "stopped" in (stands[BAD], stands[2e-5])
    assert set(stands.values()) <= {"done", "stopped", "diverged"}
    for trial in question.trials(open_splits(small_dataset).digest):
        own = [event.kind for event in events if event.trial == trial.id]
        assert own[0] == "started"
        assert own[-1] == stands[trial.changes["optim.lr"]]
        assert RunDirectory(tmp_path / "runs" / trial.id).status == own[-1]
    result = read_sweep(tmp_path / "sweeps" / "test", tmp_path / "runs")
    assert result.best is not None
    assert result.best.trial.changes["optim.lr"] == GOOD
    assert result.trained_tokens < result.budget_tokens
    assert write_report(result, tmp_path / "runs").exists()

    # A trial is an ordinary run: outside its sweep it gives the same curve.
    best = result.best.trial
    alone = execute(
        best.run, open_splits(small_dataset), tmp_path / "alone", report=lambda record: None
    )
    inside = RunDirectory(tmp_path / "runs" / best.id)
    for kind in ("train", "validation"):
        curves = [[(r["step"], r["loss"]) for r in each.records(kind)] for each in (alone, inside)]
        assert curves[0] == curves[1]

    # Asking again runs nothing.
    before = (tmp_path / "sweeps" / "test" / "ledger.jsonl").read_bytes()
    assert sweep(question, small_dataset, tmp_path)[0] == stands
    assert (tmp_path / "sweeps" / "test" / "ledger.jsonl").read_bytes() == before


@pytest.mark.usefixtures("local_ray")
def test_a_trial_that_fails_is_retried_and_then_failed_and_the_others_finish(
    small_dataset: Path, tmp_path: Path
):
    question = space(small_dataset, [GOOD, 3e-3], steps=40)
    victim = question.trials(open_splits(small_dataset).digest)[0]
    # A file where the run's directory must go: every life of this trial fails.
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / victim.id).write_text("in the way")
    stands, events = sweep(question, small_dataset, tmp_path)
    assert sorted(stands.values()) == ["done", "failed"]
    failures = [e for e in events if e.trial == victim.id and e.kind == "failed"]
    assert len(failures) == 2
    assert "Error" in failures[0].facts["error"]
    # With the cause gone, the same sweep finishes.
    (tmp_path / "runs" / victim.id).unlink()
    stands, _ = sweep(question, small_dataset, tmp_path)
    assert set(stands.values()) == {"done"}


@pytest.mark.usefixtures("local_ray")
def test_trials_of_two_workers_each_are_stopped_and_give_their_resources_back(
    small_dataset: Path, tmp_path: Path
):
    whole = ray.available_resources()["CPU"]
    question = space(small_dataset, [GOOD, 3e-3, BAD], workers=2, steps=60)
    stands, _ = sweep(question, small_dataset, tmp_path)
    assert set(stands.values()) <= {"done", "stopped"}
    assert "done" in stands.values()
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < whole:
        assert time.monotonic() < deadline, "a trial's workers still hold their CPUs"
        time.sleep(0.2)


@pytest.mark.usefixtures("local_ray")
def test_more_workers_than_the_cluster_has_room_for_are_refused(
    small_dataset: Path, tmp_path: Path
):
    question = space(small_dataset, [GOOD], workers=4)
    if ray.cluster_resources()["CPU"] >= 4:
        pytest.skip("this machine has room for four workers")
    with pytest.raises(PreflightError, match=r"execution\.workers=4, but the cluster has"):
        sweep(question, small_dataset, tmp_path)


SPACE = """'''Hypothesis: none; killed in the middle.'''
from pathlib import Path
from lmray.experiments.space import Asha
from tests.distributed.test_tune import space
SOURCE = space(Path({tokens!r}), [1e-5, 1e-3, 1e-2, 3e-3], steps=400)
BASE, SPACE, SEEDS, ASHA = SOURCE.base, dict(SOURCE.axes), [0], SOURCE.asha
"""


def test_a_sweep_whose_driver_is_killed_is_finished_by_the_same_command(
    small_dataset: Path, tmp_path: Path
):
    file = tmp_path / "killed.py"
    file.write_text(SPACE.format(tokens=str(small_dataset)))
    command = [sys.executable, "-m", "lmray", "sweep", "run", str(file), "--root", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("RAY_ADDRESS", None)
    ledger = tmp_path / "sweeps" / "killed" / "ledger.jsonl"
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len([e for e in read_events(ledger) if e.kind == "rung"]) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = read_events(ledger)
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    after = read_events(ledger)
    assert after[: len(before)] == before, "a ledger is only ever appended to"
    judged = [(e.trial, e.facts["rung"]) for e in after if "rung" in e.facts]
    assert len(judged) == len(set(judged)), "no rung is judged twice"
    result = read_sweep(tmp_path / "sweeps" / "killed", tmp_path / "runs")
    assert {row.status for row in result.rows} <= {"done", "stopped"}
    assert (tmp_path / "sweeps" / "killed" / "report" / "report.md").exists()
