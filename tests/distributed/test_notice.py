"""A process that trains and is told that it will end leaves a checkpoint, and is gone on with."""

import os
import signal
import time
from pathlib import Path

import pytest

from lmray.config import Budget, Evaluation, Execution, Run
from lmray.runs.run_directory import RunDirectory, list_runs
from lmray.sweeps.decisions.asha import TO_THE_END
from lmray.sweeps.ledger import read_events
from lmray.sweeps.space import Space
from tests.distributed.killing import Driver
from tests.small import small_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STEPS = 1500


def long_run(tokens: Path, workers: int = 1) -> Run:
    """It has no checkpoint before its end but that of a notice."""
    execution = Execution(
        device="cpu",
        threads=1,
        workers=workers,
        checkpoint_interval_steps=10**6,
        log_interval_steps=10,
    )
    return small_run(
        tokens,
        budget=Budget(tokens=STEPS * 64),
        evaluation=Evaluation(interval_tokens=STEPS * 64, prefix_tokens=256),
        execution=execution,
    )


def trained(runs: Path) -> bool:
    return any(run.records("train") for run in list_runs(runs))


def assert_went_on(run: RunDirectory) -> None:
    first, second = run.facts["lives"]
    assert first["status"] == "preempted"
    assert second["began_at_step"] > 0
    assert run.status == "done"
    assert run.facts["step"] == STEPS


def test_a_trial_goes_on_where_it_was_when_its_process_was_told(
    small_dataset: Path, tmp_path: Path
):
    question = Space("killed", "", long_run(small_dataset), {"optim.lr": [1e-3]}, (0,), TO_THE_END)
    driver = Driver(question, tmp_path)
    while not trained(tmp_path / "runs"):
        driver.check()
        time.sleep(0.05)
    for process in driver.processes("ray::ImplicitFunc"):
        os.kill(process, signal.SIGTERM)
    driver.wait()
    events = read_events(tmp_path / "sweeps" / "killed" / "ledger.jsonl")
    assert [event.kind for event in events] == ["started", "failed", "started", "done"]
    assert events[1].facts["lost"]
    assert_went_on(list_runs(tmp_path / "runs")[0])


def test_a_driver_that_is_told_has_its_trials_write_checkpoints(
    small_dataset: Path, tmp_path: Path
):
    question = Space("killed", "", long_run(small_dataset), {"optim.lr": [1e-3]}, (0,), TO_THE_END)
    driver = Driver(question, tmp_path)
    while not trained(tmp_path / "runs"):
        driver.check()
        time.sleep(0.05)
    driver.process.terminate()
    assert driver.process.wait(timeout=200) == 130
    said = (tmp_path / "driver.log").read_text()
    assert "goes on from here" in said
    assert "SIGTERM received" not in said
    Driver(question, tmp_path).wait()
    (run,) = list_runs(tmp_path / "runs")
    assert_went_on(run)
    assert "failed" not in {e.kind for e in read_events(tmp_path / "sweeps/killed/ledger.jsonl")}
