"""What a vocabulary holds, what becomes of a corpus with it, and how fast."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from lmray.corpus.ranges import SEPARATOR, ByteRange, byte_ranges
from lmray.errors import PreflightError
from lmray.machine import available_cores
from lmray.progress import Progress, silent
from lmray.threads import ordered_map
from lmray.tokenizer.kinds import is_mojibake, kind_of, readable
from lmray.tokenizer.pattern import END_OF_TEXT
from lmray.tokenizer.tokenizer import Tokenizer

PILE_BYTES = 825e9
"""Text of the Pile (Gao et al. 2020), by which the coursework asks what a throughput means."""

_LONGEST = 10
_UNITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
_RANGE_BYTES = 8 << 20
_TIMED_BYTES = 64 << 20
_TURNS = 3


@dataclass(frozen=True)
class Vocabulary:
    """What there is to say of a tokenizer without any text."""

    ids: int
    merges: int
    special_tokens: list[str]
    fingerprint: str
    longest: list[tuple[int, int, str]]
    """The ten longest tokens that are not special: bytes, id, and how they read."""
    kinds: dict[str, int]
    """How many tokens there are of each kind, the most first."""
    lengths: dict[str, int]
    """How many tokens there are of so many bytes."""
    mojibake: list[tuple[int, int, str]]
    """All tokens that double-encoded UTF-8 has left, the longest first, as in `longest`."""


@dataclass(frozen=True)
class Usage:
    """What becomes of a corpus."""

    corpus: str
    bytes: int
    tokens: int
    """Special tokens included."""
    bytes_per_token: float
    byte_fallback: float
    """Share of the tokens that are one byte of a character of several, or of invalid UTF-8."""
    single_bytes: float
    """Share of the tokens that are any one byte."""
    mojibake: float
    """Share of the tokens that double-encoded UTF-8 has left."""
    never_emitted: int
    """Merges whose token stands nowhere in the corpus, be it that longer ones are made from it."""
    unused: int
    """Those that also make no part of any token that does: without them all ids were the same."""


@dataclass(frozen=True)
class Throughput:
    """Bytes of text in memory to an array of ids, the best of three turns."""

    bytes: int
    """The text's."""
    cores: int
    """What `all_mb_per_s` was reached with."""
    one_mb_per_s: float
    all_mb_per_s: float
    pile_hours_one: float
    """Hours that 825 GB take one core."""
    pile_hours_all: float


def describe(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary by itself."""
    special = set(tokenizer.special_ids.values())
    tokens = sorted(
        ((len(data), number) for number, data in tokenizer.vocab.items() if number not in special),
        key=lambda token: (-token[0], token[1]),
    )
    shown = [(size, number, tokenizer.vocab[number]) for size, number in tokens]
    kinds = Counter(kind_of(data) for _size, _number, data in shown)
    if special:
        kinds["special"] = len(special)
    return Vocabulary(
        ids=len(tokenizer.vocab),
        merges=len(tokenizer.merges),
        special_tokens=tokenizer.special_tokens,
        fingerprint=tokenizer.fingerprint,
        longest=[(size, number, readable(data)) for size, number, data in shown[:_LONGEST]],
        kinds=dict(kinds.most_common()),
        lengths=_histogram([size for size, _number in tokens]),
        mojibake=[(size, n, readable(data)) for size, n, data in shown if is_mojibake(data)],
    )


def _histogram(lengths: Sequence[int]) -> dict[str, int]:
    found: dict[str, int] = {}
    edges = [0, *_UNITS, max([*lengths, _UNITS[-1] + 1])]
    for low, high in pairwise(edges):
        count = sum(low < length <= high for length in lengths)
        if count:
            found[str(high) if high == low + 1 else f"{low + 1}-{high}"] = count
    return found


def measure(
    tokenizer: Tokenizer, corpus: str, files: Sequence[Path], *, progress: Progress = silent
) -> Usage:
    """Encodes all of `files`, a part at a time, by as many threads as there are cores.

    Raises PreflightError if there is no text in them.
    """
    counts = count_ids(tokenizer, files, progress=progress, phase=f"encode {corpus}")
    tokens = int(counts.sum())
    if tokens == 0:
        raise PreflightError(f"there is no text in {', '.join(map(str, files))}; name other files")
    single = {n: data for n, data in tokenizer.vocab.items() if len(data) == 1}
    fallback = [number for number, data in single.items() if data >= b"\x80"]
    mojibake = [number for number, data in tokenizer.vocab.items() if is_mojibake(data)]
    num_bytes = int(counts @ tokenizer.token_bytes().astype(np.int64))
    never_emitted, unused = unused_merges(tokenizer, counts)
    return Usage(
        corpus=corpus,
        bytes=num_bytes,
        tokens=tokens,
        bytes_per_token=num_bytes / tokens,
        byte_fallback=int(counts[fallback].sum()) / tokens,
        single_bytes=int(counts[list(single)].sum()) / tokens,
        mojibake=int(counts[mojibake].sum()) / tokens,
        never_emitted=len(never_emitted),
        unused=len(unused),
    )


def count_ids(
    tokenizer: Tokenizer,
    files: Sequence[Path],
    *,
    progress: Progress = silent,
    phase: str = "encode",
) -> np.ndarray:
    """How often each id occurs in `files`, int64."""

    def count(part: ByteRange) -> tuple[int, np.ndarray]:
        ids = tokenizer.encode_to_numpy(part.read())
        return part.size, np.bincount(ids, minlength=tokenizer.vocab_size)

    # Text may be cut at a separator where that is a token of its own.
    separate = END_OF_TEXT in tokenizer.special_ids and SEPARATOR == END_OF_TEXT.encode()
    size = _RANGE_BYTES if separate else 1 << 62
    ranges = [part for file in files for part in byte_ranges(file, target_bytes=size)]
    total = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    done, of = 0, sum(part.size for part in ranges)
    for num_bytes, counts in ordered_map(count, ranges, num_threads=available_cores()):
        total += counts
        done += num_bytes
        progress(phase, done, of, "bytes")
    return total


def unused_merges(
    tokenizer: Tokenizer, counts: np.ndarray
) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    """Merges whose token is never emitted, and those of them that no emitted token is made with.

    `counts` says how often each id is emitted. Exact where no two merges make the same token, as
    training never does.
    """
    emitted = {data for number, data in tokenizer.vocab.items() if counts[number]}
    made = set(emitted)
    for left, right in reversed(tokenizer.merges):
        if left + right in made:
            made |= {left, right}
    never = [pair for pair in tokenizer.merges if b"".join(pair) not in emitted]
    return never, [pair for pair in never if b"".join(pair) not in made]


def throughput(tokenizer: Tokenizer, files: Sequence[Path]) -> Throughput:
    """Measures on up to 64 MiB from the beginning of the first file; seconds, not minutes."""
    with files[0].open("rb") as file:
        text = file.read(_TIMED_BYTES)
    if not text:
        raise PreflightError(f"there is no text in {files[0]}; name another file")
    cores = available_cores()
    tokenizer.encode_to_numpy(text, num_threads=cores)  # loads kernels, fills caches
    one, every = (_rate(tokenizer, text, threads) for threads in (1, cores))
    hours = PILE_BYTES / 1e6 / 3600
    return Throughput(len(text), cores, one, every, hours / one, hours / every)


def _rate(tokenizer: Tokenizer, text: bytes, num_threads: int) -> float:
    """Megabytes a second."""
    seconds = []
    for _ in range(_TURNS):
        begun = time.perf_counter()
        tokenizer.encode_to_numpy(text, num_threads=num_threads)
        seconds.append(time.perf_counter() - begun)
    return len(text) / 1e6 / min(seconds)
