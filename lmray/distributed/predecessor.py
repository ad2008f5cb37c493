"""Waiting for the process that trained a run before: Ray, or a file system, is letting go of it."""

import time

from lmray.runs.run_directory import RunDirectory
from lmray.storage import is_locked

_PATIENCE_S = 150.0
"""NFS holds the locks of a machine that is gone for a lease of a minute and a half."""


def wait_for_predecessor(directory: RunDirectory) -> None:
    """Waits, within reason, while the process of a driver or a group that is gone holds the run."""
    deadline = time.monotonic() + _PATIENCE_S
    while is_locked(directory.path) and time.monotonic() < deadline:
        time.sleep(0.2)
