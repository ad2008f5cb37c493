"""Byte ranges of a text file that end on document boundaries: what a parallel task is given."""

from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lmray.errors import CorruptionError, UsageError

SEPARATOR = b"<|endoftext|>"
"""What follows every document in a canonical text file."""

_WINDOW = 1 << 16


@dataclass(frozen=True)
class ByteRange:
    """The bytes `start` to `end` (exclusive) of a file: what is sent to a task instead of text."""

    path: str
    start: int
    end: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.end - self.start

    def read(self) -> bytes:
        """The bytes themselves.

        Raises CorruptionError if the file has become shorter than the range.
        """
        with _open(self.path) as file:
            file.seek(self.start)
            data = file.read(self.size)
        if len(data) < self.size:
            raise CorruptionError(
                f"{self.path} ends at byte {self.start + len(data):,}, but its range goes on to "
                f"{self.end:,}: the file changed under the run; restore it or start again"
            )
        return data


def byte_ranges(
    path: Path | str,
    *,
    target_bytes: int,
    separator: bytes = SEPARATOR,
    window: int = _WINDOW,
) -> list[ByteRange]:
    """Cuts a file into contiguous ranges, each ending right after a separator or with the file.

    A range ends with the first separator that completes `target_bytes`, so it exceeds the target by
    less than a document. The file is read only from there to the cut, `window` bytes at a time; the
    result does not depend on `window`.
    """
    if target_bytes < 1:
        raise UsageError(f"target_bytes={target_bytes} is not positive; ask for at least 1 byte")
    ranges = []
    with _open(path) as file:
        size = file.seek(0, 2)
        start = 0
        while start < size:
            end = size
            if size - start > target_bytes:
                search_from = max(start, start + target_bytes - len(separator))
                found = find_separator(file, search_from, separator=separator, window=window)
                end = size if found < 0 else found + len(separator)
            ranges.append(ByteRange(str(path), start, end))
            start = end
    return ranges


def find_separator(
    file: IO[bytes], start: int, *, separator: bytes = SEPARATOR, window: int = _WINDOW
) -> int:
    """Offset of the first separator that begins at or after `start`, or -1, as in bytes.find."""
    file.seek(start)
    seen = b""
    while block := file.read(window):
        seen += block
        found = seen.find(separator)
        if found >= 0:
            return start + found
        # A separator may straddle two windows, so all but its last byte could be in the tail.
        tail = seen[len(seen) - min(len(seen), len(separator) - 1) :]
        start += len(seen) - len(tail)
        seen = tail
    return -1


def _open(path: Path | str) -> IO[bytes]:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise UsageError(
            f"cannot read {path} ({error.strerror}); check the path and its permissions"
        ) from error
