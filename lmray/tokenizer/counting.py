"""Counting pre-tokens: all that learning merges needs to know of a corpus."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from lmray.errors import PreflightError
from lmray.tokenizer import native
from lmray.tokenizer.classes import character_classes
from lmray.tokenizer.counts import PretokenCounts
from lmray.tokenizer.pattern import GPT2_PATTERN, Pretokenizer
from lmray.tokenizer.specials import SpecialTokens
from lmray.tokenizer.text import to_bytes, to_text

UNBOUNDED = 1 << 62
"""A memory limit that is none."""


class PretokenCounter(Protocol):
    """Adds up pre-tokens over any number of texts, special tokens left out.

    The counts of parts add up to those of the whole where each cut is a special token's end. Both
    kinds raise PreflightError where the distinct pre-tokens need more memory than allowed.
    """

    def add(self, data: bytes) -> None:
        """Counts the pre-tokens of one more text."""

    def counts(self) -> PretokenCounts:
        """The pre-tokens met so far."""


def pretoken_counter(
    pattern: str, special_tokens: Sequence[str], *, num_bytes: int, memory: int = UNBOUNDED
) -> PretokenCounter:
    """The counter to use for `num_bytes` of text, which keeps to about `memory` bytes."""
    if native.worth_it(pattern, num_bytes):
        return NativeCounter(pattern, special_tokens, memory=memory)
    return RegexCounter(Pretokenizer(pattern, special_tokens), memory=memory)


def count_pretokens(data: bytes, *, pattern: str, special_tokens: Sequence[str]) -> PretokenCounts:
    """How often each pre-token occurs in `data`, special tokens left out."""
    counter = pretoken_counter(pattern, special_tokens, num_bytes=len(data))
    counter.add(data)
    return counter.counts()


def merge_counts(tables: Iterable[PretokenCounts], *, memory: int = UNBOUNDED) -> PretokenCounts:
    """The sum of several counts, which are taken one at a time.

    Raises PreflightError where it needs more than about `memory` bytes.
    """
    few: Counter[bytes] = Counter()
    counter = None
    for table in tables:
        if counter is None and native.enough(len(table.data)):
            counter = NativeCounter(GPT2_PATTERN, [], memory=memory)
            counter.add_counts(PretokenCounts.of(few))
        if counter is None:
            few.update(table.as_counter())
        else:
            counter.add_counts(table)
    return PretokenCounts.of(few) if counter is None else counter.counts()


class RegexCounter:
    """Counts by any pattern; what the kernels are held against."""

    _ENTRY = 200
    """Bytes of one entry of a Counter, its key included, for the short keys that text has."""

    def __init__(self, pretokenizer: Pretokenizer, *, memory: int = UNBOUNDED) -> None:
        self._pretokenizer = pretokenizer
        self._memory = memory
        self._counts: Counter[str] = Counter()

    def add(self, data: bytes) -> None:
        """Counts the pre-tokens of one more text."""
        self._counts.update(self._pretokenizer.cut(to_text(data)))
        for token in self._pretokenizer.special_tokens:
            del self._counts[token]
        check_memory(len(self._counts), len(self._counts) * self._ENTRY, self._memory)

    def counts(self) -> PretokenCounts:
        """The pre-tokens met so far, in the order in which they were met."""
        return PretokenCounts.of({to_bytes(piece): count for piece, count in self._counts.items()})


class NativeCounter:
    """Counts by a pattern that has kernels, in flat arrays; one thread at a time."""

    _SLOTS = 1 << 14
    _ARENA = 1 << 16

    def __init__(
        self, pattern: str, special_tokens: Sequence[str], *, memory: int = UNBOUNDED
    ) -> None:
        """Loads the kernels."""
        self._kernels = native.kernels()
        self._memory = memory
        self._specials = SpecialTokens(dict.fromkeys(special_tokens, 0))
        self._classes = character_classes()
        self._rules = native.rules(pattern)
        self._slots = np.zeros(self._SLOTS * self._kernels.WIDTH, dtype=np.uint64)
        self._ends = np.empty(self._SLOTS // 2, dtype=np.int64)
        self._counts = np.empty(self._SLOTS // 2, dtype=np.int64)
        self._arena = np.empty(self._ARENA, dtype=np.uint8)
        self._distinct = self._used = 0

    def add(self, data: bytes) -> None:
        """Counts the pre-tokens of one more text."""
        text = np.frombuffer(data, dtype=np.uint8)
        cuts = self._specials.cuts(data)
        state = np.array([0, 0, self._distinct, self._used], dtype=np.int64)
        while status := self._kernels.count(
            text,
            cuts,
            state,
            self._slots,
            self._arena,
            self._ends,
            self._counts,
            self._classes,
            self._rules,
        ):
            self._make_room(status, at_least=len(data))
        self._distinct, self._used = map(int, state[2:])

    def add_counts(self, counts: PretokenCounts) -> None:
        """Adds what another has counted."""
        state = np.array([0, 0, self._distinct, self._used], dtype=np.int64)
        while status := self._kernels.add_counts(
            counts.data,
            counts.ends,
            counts.counts,
            state,
            self._slots,
            self._arena,
            self._ends,
            self._counts,
        ):
            self._make_room(status, at_least=len(counts.data))
        self._distinct, self._used = map(int, state[2:])

    def counts(self) -> PretokenCounts:
        """The pre-tokens met so far, in the order in which they were met."""
        return PretokenCounts(
            self._arena[: self._used].copy(),
            self._ends[: self._distinct].copy(),
            self._counts[: self._distinct].copy(),
        )

    def _make_room(self, status: int, *, at_least: int) -> None:
        if status == self._kernels.TABLE_FULL:
            # Old and new table are both there for a moment.
            needed = 3 * self._slots.nbytes + 6 * self._ends.nbytes + self._arena.nbytes
            check_memory(len(self._ends), needed, self._memory)
            grown = np.zeros(2 * len(self._slots), dtype=np.uint64)
            self._kernels.rehash(self._slots, grown)
            self._slots = grown
            self._ends, self._counts = _doubled(self._ends), _doubled(self._counts)
        else:
            # The pre-token that had no room may be longer than all there is.
            self._arena = _doubled(self._arena, at_least=at_least)


def check_memory(distinct: int, needed: int, allowed: int) -> None:
    """Raises PreflightError if `distinct` pre-tokens need more bytes than are allowed."""
    if needed > allowed:
        raise PreflightError(
            f"{distinct:,} distinct pre-tokens need {needed / 1e9:.3g} GB, more than the "
            f"{allowed / 1e9:.3g} GB allowed; count a sample with --max-bytes or raise --memory"
        )


def _doubled(array: np.ndarray, *, at_least: int = 0) -> np.ndarray:
    """A longer array that begins with `array`; its memory is touched as it is filled."""
    longer = np.empty(len(array) + max(len(array), at_least), dtype=array.dtype)
    longer[: len(array)] = array
    return longer
