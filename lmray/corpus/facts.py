"""What a split of a corpus holds: the numbers that `lmray corpus stat` shows."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from lmray.corpus.documents import file_size, read_all
from lmray.errors import PreflightError
from lmray.progress import Progress, silent


@dataclass(frozen=True)
class Facts:
    """Numbers about text files; lengths are of documents, in bytes."""

    bytes: int
    documents: int
    median_bytes: float
    longest_bytes: int
    invalid_utf8_share: float
    """Bytes that are not part of valid UTF-8, as a fraction of all."""


def stat(paths: Sequence[Path], *, progress: Progress = silent) -> Facts:
    """Reads text files once, holding one document at a time.

    Raises PreflightError if they hold no document.
    """
    lengths, invalid = array("Q"), 0
    for document in read_all(paths, progress=progress):
        lengths.append(len(document))
        invalid += _invalid_bytes(document)
    if not lengths:
        raise PreflightError(f"no document in {', '.join(map(str, paths))}; give files with text")
    total = sum(map(file_size, paths))
    return Facts(
        bytes=total,
        documents=len(lengths),
        median_bytes=median(lengths),
        longest_bytes=max(lengths),
        invalid_utf8_share=invalid / total,
    )


def _invalid_bytes(document: bytes) -> int:
    try:
        document.decode()
    except UnicodeDecodeError:
        # A byte outside valid UTF-8 decodes to one code point of this range; nothing else does.
        text = document.decode("utf-8", "surrogateescape")
        return sum("\udc80" <= character <= "\udcff" for character in text)
    return 0
