"""Trials share a node as far as its GPU, which need not exist, or its memory has room."""

import signal
import time
from pathlib import Path

import pytest

from lmray.config import override
from lmray.dataset import open_splits
from lmray.machine import GB
from lmray.runs.run_directory import RunDirectory
from lmray.storage import is_locked
from lmray.sweeps.ledger import read_events
from lmray.sweeps.space import TO_THE_END, Space
from lmray.sweeps.sweep_directory import StopFile
from tests.distributed.killing import Driver
from tests.small import small_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.parametrize(
    ("share", "node"),
    [(0.5, {"gpus": 1}), (1.0, {"memory": 3 * GB})],
    ids=["half a GPU each", "a little over 1 GB of 3 each"],
)
def test_as_many_trials_as_have_room_on_a_node_train_at_once_and_no_more(
    small_dataset: Path, tmp_path: Path, share: float, node: dict[str, int]
):
    changes = {
        "execution.device": "auto",  # a CPU where Ray alone has a GPU
        "execution.gpu_share": share,
        "execution.log_interval_steps": 100,
        "budget.tokens": 64_000_000,
        "evaluation.interval_tokens": 64_000_000,
    }
    base = override(small_run(small_dataset), changes)
    question = Space("shared", "", base, {"optim.lr": [1e-3, 2e-3, 3e-3]}, (0,), TO_THE_END)
    assert GB < question.process_memory() < 1.5 * GB
    trials = question.trials(open_splits(small_dataset).digest)
    runs = [RunDirectory(tmp_path / "runs" / trial.id) for trial in trials]
    driver = Driver(question, tmp_path, "--yes", "--tokens-per-s=1e9", cpus=4, **node)
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
