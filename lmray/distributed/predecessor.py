"""Waiting for another process that trains a run: Ray, or a file system, is letting go of it."""

import time
from collections.abc import Callable

from lmray.runs.run_directory import RunDirectory
from lmray.storage import is_locked
from lmray.training.loop import never

_PATIENCE_S = 150.0
"""NFS holds the locks of a machine that is gone for a lease of a minute and a half."""


def wait_for_predecessor(directory: RunDirectory, interrupted: Callable[[], bool] = never) -> None:
    """Waits, within reason, while the process of a driver or a group that is gone holds the run.

    Not if `interrupted()`.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while is_locked(directory.path) and time.monotonic() < deadline and not interrupted():
        time.sleep(0.2)


def wait_while_it_trains(directory: RunDirectory, interrupted: Callable[[], bool]) -> None:
    """Waits while another process holds the run and goes on with it: one of another sweep, say.

    Not if `interrupted()`.
    """
    while is_locked(directory.path) and not interrupted():
        before = _written(directory)
        wait_for_predecessor(directory, interrupted)
        if _written(directory) == before:
            return


def _written(directory: RunDirectory) -> int:
    metrics = directory.path / "metrics.jsonl"
    return metrics.stat().st_size if metrics.exists() else 0
