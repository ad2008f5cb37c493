"""Waiting for the process that trained a run before: Ray, or a file system, is letting go of it."""

import fcntl
import time

from lmray.runs.run_directory import RunDirectory

_PATIENCE_S = 150.0
"""NFS holds the locks of a machine that is gone for a lease of a minute and a half."""


def wait_for_predecessor(directory: RunDirectory) -> None:
    """Waits, within reason, while the process of a driver or a group that is gone holds the run."""
    lock = directory.path / ".lock"
    deadline = time.monotonic() + _PATIENCE_S
    while lock.exists() and time.monotonic() < deadline:
        with lock.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(0.2)
