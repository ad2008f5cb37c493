"""What the runs of a sweep take of the disk, and the end of a sweep that takes too much of it."""

import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from lmray import remote
from lmray.errors import LimitError, UsageError
from lmray.machine import GB
from lmray.sweeps.ledger import read_events

_BLOCK = 512
"""Bytes of what stat counts (POSIX: st_blocks)."""

_REST = 9
"""Times as long as a look took until the next one."""


def occupied(folders: Iterable[Path]) -> int:
    """Bytes of the disk that folders and all in them take, as du counts them: hard links once.

    Others may write to them and delete meanwhile.
    """
    counted: set[tuple[int, int]] = set()
    total = 0
    for folder in folders:
        for found in _within(folder):
            key = found.st_dev, found.st_ino
            total += 0 if key in counted else _BLOCK * found.st_blocks
            counted.add(key)
    return total


def _within(folder: Path) -> Iterator[os.stat_result]:
    """The folder and what is beneath it, links themselves and not what they point to."""
    try:
        yield folder.lstat()
    except FileNotFoundError:
        return
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            try:
                yield Path(path, name).lstat()
            except FileNotFoundError:
                continue


class DiskLimit:
    """Says whether the runs of a sweep's trials have taken more of the disk than they may.

    Once they have, it goes on saying so. Asked of often, it looks a tenth of the time at most.
    """

    def __init__(self, directory: Path, runs: Path, max_gb: float) -> None:
        """`max_gb` GB for those that are begun in the sweep of `directory`; infinity is no limit.

        Raises UsageError for runs at a URL.
        """
        if remote.url(runs) and not math.isinf(max_gb):
            raise UsageError(
                f"--max-disk={max_gb:g} looks at folders and the runs are at {remote.url(runs)}; "
                f"leave it out, or limit the bucket"
            )
        self._ledger, self._runs, self._max_gb = directory / "ledger.jsonl", runs, max_gb
        self._found = 0
        self._next_look = -math.inf

    def __call__(self) -> bool:
        """Whether the limit has been passed."""
        begun = time.monotonic()
        if not self._passed and not math.isinf(self._max_gb) and begun >= self._next_look:
            trials = {event.trial for event in read_events(self._ledger)}
            self._found = occupied(self._runs / trial for trial in trials)
            ended = time.monotonic()
            self._next_look = ended + _REST * (ended - begun)
        return self._passed

    @property
    def _passed(self) -> bool:
        return self._found > self._max_gb * GB

    def require(self) -> None:
        """Raises LimitError saying how to go on if the limit has been passed."""
        if self():
            raise LimitError(
                f"the sweep's runs take {self._found / GB:.4g} GB of disk and --max-disk="
                f"{self._max_gb:g}, so no more trials begin; go on with `lmray sweep resume` and a "
                f"larger --max-disk, or with `lmray sweep run` and what keeps less: "
                f"--losers nothing, execution.keep_checkpoints=1"
            )
