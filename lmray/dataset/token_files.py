"""Other programs' files of token ids: nanoGPT's and llm.c's .bin, and NumPy's .npy.

nanoGPT: ids as uint16, nothing else. llm.c (dev/data/data_common.py): 256 int32 (magic, version,
number of ids, zeros), then the ids as uint16, or as uint32 for Llama 3. All little-endian.
"""

from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np

from lmray.errors import CorruptionError, UsageError

HEADER_BYTES = 1024

FORMATS = ("nanogpt", "llmc", "npy")
"""What `open_ids` reads."""


@dataclass(frozen=True)
class LlmcKind:
    """One of llm.c's two kinds of token file."""

    magic: int
    version: int
    dtype: str

    def header(self, tokens: int) -> bytes:
        """The 1024 bytes before the ids."""
        header = np.zeros(HEADER_BYTES // 4, dtype="<i4")
        header[:3] = self.magic, self.version, tokens
        return header.tobytes()


LLMC_UINT16 = LlmcKind(20240520, 1, "<u2")
LLMC_UINT32 = LlmcKind(20240801, 7, "<u4")
_LLMC_EVALUATION = 20240522
_LLMC = {kind.magic: kind for kind in (LLMC_UINT16, LLMC_UINT32)}


def detect(path: Path) -> str:
    """Which of FORMATS a file begins like; raw ids begin like nothing in particular.

    Raises UsageError for a file that is not there, and for what has a header as llm.c's token
    files have, but another magic.
    """
    start, size = _start(path)
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if len(start) < HEADER_BYTES:
        return "nanogpt"
    magic, _version, tokens, *rest = (int(number) for number in np.frombuffer(start, dtype="<i4"))
    if magic in _LLMC:
        return "llmc"
    counted = size - HEADER_BYTES in (2 * tokens, 4 * tokens) and not any(rest)
    if magic == _LLMC_EVALUATION or (magic and counted):
        raise UsageError(
            f"{path} begins with a header of magic {magic}, not {_known()}; give llm.c's token "
            f"files, or --format nanogpt if these are ids"
        )
    return "nanogpt"


def open_ids(path: Path, *, format: str) -> np.ndarray:
    """The ids of a file, shape (tokens,), on disk until they are read.

    Raises UsageError for a file that cannot be read, and CorruptionError for one that is not whole
    or not of `format`.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown token format {format!r}; choose {', '.join(FORMATS)}")
    start, size = _start(path)
    if format == "npy":
        ids = _open_npy(path)
    elif format == "llmc":
        ids = _open_llmc(path, start, size)
    elif size % 2:
        raise CorruptionError(
            f"{path} has {size:,} bytes, which no number of uint16 ids has; copy it again whole"
        )
    else:
        ids = _map(path, "<u2", 0, size // 2)
    if not len(ids):
        raise UsageError(f"{path} has no tokens; leave it out")
    return ids


def _start(path: Path) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            start = file.read(HEADER_BYTES)
            return start, file.seek(0, 2)
    except OSError as error:
        raise UsageError(
            f"cannot read {path} ({error.strerror}); check the path and its permissions"
        ) from error


def _map(path: Path, dtype: str, offset: int, tokens: int) -> np.ndarray:
    if not tokens:  # which cannot be mapped
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(tokens,))


def _open_llmc(path: Path, start: bytes, size: int) -> np.ndarray:
    if len(start) < HEADER_BYTES:
        raise CorruptionError(
            f"{path} has {size:,} bytes and llm.c's header {HEADER_BYTES:,}; copy it again whole"
        )
    magic, version, tokens = (int(number) for number in np.frombuffer(start, "<i4", count=3))
    kind = _LLMC.get(magic)
    if kind is None or version != kind.version:
        raise CorruptionError(
            f"{path} has magic {magic} and version {version}, not {_known()}; give llm.c's token "
            f"files, or --format nanogpt for ids without a header"
        )
    held = size - HEADER_BYTES
    if tokens < 0 or held != tokens * np.dtype(kind.dtype).itemsize:
        raise CorruptionError(
            f"{path} says it has {tokens:,} {kind.dtype} ids and has {held:,} bytes of them; copy "
            f"it again whole"
        )
    return _map(path, kind.dtype, HEADER_BYTES, tokens)


def _known() -> str:
    return " or ".join(f"{kind.magic} version {kind.version}" for kind in _LLMC.values())


def _open_npy(path: Path) -> np.ndarray:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, SyntaxError, TokenError) as error:  # what NumPy says of damaged headers
        raise CorruptionError(
            f"{path} is truncated or no .npy file of numbers ({error}); save it again"
        ) from error
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UsageError(
            f"{path} has shape {array.shape} and type {array.dtype}, not one row of whole numbers; "
            f"save ids.reshape(-1).astype(numpy.uint32)"
        )
    return array
