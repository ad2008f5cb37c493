"""Two trials on one GPU of Ray's, which need not exist: execution.device=auto is a CPU then."""

import signal
import time
from pathlib import Path

import pytest

from lmray.config import override
from lmray.dataset import open_splits
from lmray.runs.run_directory import RunDirectory
from lmray.storage import is_locked
from lmray.sweeps.ledger import read_events
from lmray.sweeps.space import TO_THE_END, Space
from lmray.sweeps.sweep_directory import StopFile
from tests.distributed.killing import Driver
from tests.small import small_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_as_many_trials_as_share_a_gpu_train_at_once_and_no_more(
    small_dataset: Path, tmp_path: Path
):
    changes = {
        "execution.device": "auto",
        "execution.gpu_share": 0.5,
        "execution.log_interval_steps": 100,
        "budget.tokens": 64_000_000,
        "evaluation.interval_tokens": 64_000_000,
    }
    base = override(small_run(small_dataset), changes)
    question = Space("shared", "", base, {"optim.lr": [1e-3, 2e-3, 3e-3]}, (0,), TO_THE_END)
    trials = question.trials(open_splits(small_dataset).digest)
    runs = [RunDirectory(tmp_path / "runs" / trial.id) for trial in trials]
    driver = Driver(question, tmp_path, "--yes", "--tokens-per-s=1e9", cpus=4, gpus=1)
    try:
        while sum(is_locked(run.path) and bool(run.records("train")) for run in runs) < 2:
            driver.check()
            time.sleep(0.2)
        directory = tmp_path / "sweeps" / "killed"
        begun = [event.kind for event in read_events(directory / "ledger.jsonl")]
        assert begun == ["started", "started"]
        StopFile.of(directory).ask()
        assert driver.process.wait(timeout=240) == 130
    finally:
        driver.process.send_signal(signal.SIGKILL)
        driver.process.wait()
    assert sorted(run.status for run in runs) == ["absent", "preempted", "preempted"]
