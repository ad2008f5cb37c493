"""A process that trains and is told that it will end leaves a checkpoint, and is gone on with."""

import os
import signal
import subprocess
import sys
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_is_told_has_its_trials_write_checkpoints(
    number: int, small_dataset: Path, tmp_path: Path
):
    question = Space("killed", "", long_run(small_dataset), {"optim.lr": [1e-3]}, (0,), TO_THE_END)
    driver = Driver(question, tmp_path)
    while not trained(tmp_path / "runs"):
        driver.check()
        time.sleep(0.05)
    if number == signal.SIGINT:  # Ctrl-C goes to all that the terminal's command has started
        os.killpg(driver.process.pid, number)
    else:
        driver.process.terminate()
    assert driver.process.wait(timeout=200) == 130
    said = (tmp_path / "driver.log").read_text()
    assert "asked to stop" in said
    assert "goes on from here" in said
    assert "SIGTERM received" not in said
    Driver(question, tmp_path).wait()
    (run,) = list_runs(tmp_path / "runs")
    assert_went_on(run)
    assert "failed" not in {e.kind for e in read_events(tmp_path / "sweeps/killed/ledger.jsonl")}


def test_a_driver_that_is_told_twice_ends_at_once(small_dataset: Path, tmp_path: Path):
    question = Space("killed", "", long_run(small_dataset), {"optim.lr": [1e-3]}, (0,), TO_THE_END)
    driver = Driver(question, tmp_path)
    while not (children := driver.processes("ray::ImplicitFunc")) or not trained(tmp_path / "runs"):
        driver.check()
        time.sleep(0.05)
    os.kill(children[0], signal.SIGSTOP)  # a trial that does not come to its checkpoint
    driver.process.send_signal(signal.SIGINT)
    time.sleep(3)
    driver.check()
    driver.process.send_signal(signal.SIGINT)
    assert driver.process.wait(timeout=60) == 130


AFTER = """
import os, signal, sys, time
from pathlib import Path
from lmray.distributed.cluster import ray_session
from lmray.distributed.tune import run_sweep
from lmray.config import Run
from lmray.dataset import open_splits
from lmray.sweeps.decisions.asha import TO_THE_END
from lmray.sweeps.space import Space
from lmray.sweeps.sweep_directory import claim

base, root = Run.model_validate_json(sys.argv[1]), Path(sys.argv[2])
space = Space("after", "", base, {"optim.lr": [1e-3]}, (0,), TO_THE_END)
splits = open_splits(base.data.tokens)
numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
for number in numbers:
    signal.signal(number, signal.SIG_DFL)
claim(root / "sweep", space, splits.digest)
with ray_session():
    print(run_sweep(space, splits, root / "sweep", root / "runs").values())
    in_session = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)
print(in_session == (signal.SIG_DFL, signal.SIG_DFL))
for number in numbers:
    child = os.fork()
    if not child:
        os.kill(os.getpid(), number)
        time.sleep(1)
        os._exit(0)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]) == number, flush=True)
"""


def test_after_a_sweep_signals_are_what_they_were(small_dataset: Path, tmp_path: Path):
    """Ray takes three of them for itself, and leaves it so; a report may be under way by then."""
    run = small_run(small_dataset)
    command = [sys.executable, "-c", AFTER, run.model_dump_json(), str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert process.stdout.splitlines() == ["dict_values(['done'])", *["True"] * 4], process.stderr
    assert process.stderr == ""
