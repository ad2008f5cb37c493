"""A job waits for another process that trains its run, for as long as that goes on with it."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lmray.distributed import predecessor
from lmray.distributed.predecessor import wait_while_it_trains
from lmray.runs.run_directory import RunDirectory
from lmray.storage import is_locked
from lmray.training.loop import never

HOLDER = """
import sys, time
from pathlib import Path
from lmray.runs.run_directory import RunDirectory
run, records = RunDirectory(sys.argv[1]), int(sys.argv[2])
with run.locked():
    print("held", flush=True)
    for number in range(records):
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write("{}\\n")
        time.sleep(0.1)
    if not records:
        time.sleep(60)
"""


@contextmanager
def held(folder: Path, records: int) -> Iterator[RunDirectory]:
    """A process of its own holds the run and writes as many records, or none and does not end."""
    command = [sys.executable, "-c", HOLDER, str(folder), str(records)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield RunDirectory(folder)
        process.kill()


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predecessor, "_PATIENCE_S", 2.0)


def test_it_waits_until_the_other_is_done(tmp_path: Path):
    with held(tmp_path / "run", records=50) as run:
        wait_while_it_trains(run, never)
        assert not is_locked(run.path)
        assert (run.path / "metrics.jsonl").read_text().count("\n") == 50


def test_it_does_not_wait_for_one_that_writes_nothing(tmp_path: Path):
    with held(tmp_path / "run", records=0) as run:
        wait_while_it_trains(run, never)
        assert is_locked(run.path)


def test_it_leaves_when_the_sweep_is_asked_to_stop(tmp_path: Path):
    with held(tmp_path / "run", records=50) as run:
        end = time.monotonic() + 0.5
        wait_while_it_trains(run, lambda: time.monotonic() > end)
        assert is_locked(run.path)
