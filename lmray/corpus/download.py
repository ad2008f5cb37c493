"""Downloads that resume, are verified, and are there whole or not at all."""

import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lmray.corpus.transfer import Cut, Part, fetch_rest
from lmray.errors import CorruptionError, LmrayError
from lmray.progress import Progress, silent
from lmray.storage import read_json, sha256_file, write_json

_RETRIES = 4
_BACKOFF_SECONDS = 1.0
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is fetched."""

    bytes: int | Literal["unknown"] = "unknown"
    sha256: str = "unknown"
    """In hex, or "unknown"."""


@dataclass(frozen=True)
class Receipt:
    """What was fetched; kept beside the file as `<file>.receipt.json`."""

    url: str
    bytes: int
    sha256: str
    verified: Literal["sha256", "size", "nothing"]
    """What this lmray or the server knew of the file and found to be true of it."""


def download(
    url: str, path: Path | str, *, expected: Expected = Expected(), progress: Progress = silent
) -> Receipt:
    """Fetches `url` to `path` unless a file is there, going on where an earlier attempt stopped.

    A cut connection is taken up again as long as that brings new bytes. Hugging Face names the
    SHA-256 of large files, which is verified; where nobody does, only a known size is, and the
    receipt says so. Raises LmrayError if the file cannot be had, CorruptionError if it is another.
    """
    path = Path(path)
    record = path.with_name(path.name + ".receipt.json")
    if path.exists():
        return _accept(url, path, record, expected)
    part = Part(path)
    server_hash = _fetch(url, path, part, expected, progress)
    if expected.sha256 == "unknown" and _SHA256.fullmatch(server_hash):
        expected = Expected(expected.bytes, server_hash)
    try:
        receipt = _verify(url, part.path, expected)
    except CorruptionError:
        part.discard()
        raise
    part.path.rename(path)
    part.discard()
    write_json(record, asdict(receipt))
    return receipt


def _accept(url: str, path: Path, record: Path, expected: Expected) -> Receipt:
    """The receipt of a file that is there, which may have been put there by hand."""
    if record.exists():
        receipt = Receipt(**read_json(record))
        if receipt.bytes == path.stat().st_size:
            return receipt
        expected = Expected(receipt.bytes, receipt.sha256)
    receipt = _verify(url, path, expected)
    write_json(record, asdict(receipt))
    return receipt


def _fetch(url: str, path: Path, part: Part, expected: Expected, progress: Progress) -> str:
    failures = 0
    while True:
        before = part.size
        try:
            return fetch_rest(url, part, expected_bytes=expected.bytes, progress=progress)
        except Cut as cut:
            failures = 0 if part.size > before else failures + 1
            if cut.hopeless or failures > _RETRIES:
                raise LmrayError(
                    f"cannot fetch {url} ({cut}); fetch it elsewhere and put it at {path}, or name "
                    f"a local file with --corpus FILE, or use the default corpus, which needs no "
                    f"network"
                ) from cut
        time.sleep(_BACKOFF_SECONDS * 2**failures)


def _verify(url: str, path: Path, expected: Expected) -> Receipt:
    size, sha256 = path.stat().st_size, sha256_file(path)
    if expected.bytes not in ("unknown", size):
        raise CorruptionError(
            f"{path} has {size:,} bytes, but {url} should have {expected.bytes:,}; remove the file "
            f"and fetch it again"
        )
    if expected.sha256 not in ("unknown", sha256):
        raise CorruptionError(
            f"{path} has SHA-256 {sha256}, but {url} should have {expected.sha256}; remove the "
            f"file and fetch it again"
        )
    if expected.sha256 != "unknown":
        return Receipt(url, size, sha256, "sha256")
    return Receipt(url, size, sha256, "nothing" if expected.bytes == "unknown" else "size")
