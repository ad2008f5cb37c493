"""Counting pre-tokens: all that learning merges needs to know of a corpus."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lmray.tokenizer import native
from lmray.tokenizer.classes import character_classes
from lmray.tokenizer.pattern import Pretokenizer
from lmray.tokenizer.specials import SpecialTokens
from lmray.tokenizer.text import to_bytes, to_text


def count_pretokens(data: bytes, *, pattern: str, special_tokens: Sequence[str]) -> Counter[bytes]:
    """How often each pre-token occurs in `data`, special tokens left out.

    The counts of parts add up to those of the whole where each cut is a special token's end.
    """
    pretokenizer = Pretokenizer(pattern, special_tokens)
    if native.worth_it(pattern, len(data)):
        counter = PretokenCounter(pattern, special_tokens)
        counter.add(data)
        return counter.total()
    return count_by_regex(data, pretokenizer)


def count_by_regex(data: bytes, pretokenizer: Pretokenizer) -> Counter[bytes]:
    """`count_pretokens` for any pattern, and what its kernel is held against."""
    pieces = Counter(pretokenizer.cut(to_text(data)))
    for token in pretokenizer.special_tokens:
        del pieces[token]
    return Counter({to_bytes(piece): count for piece, count in pieces.items()})


class PretokenCounter:
    """Counts of the pre-tokens of a pattern that has kernels, over any number of texts."""

    _SLOTS = 1 << 14
    _ARENA = 1 << 16

    def __init__(self, pattern: str, special_tokens: Sequence[str]) -> None:
        """Loads the kernels."""
        self._kernels = native.kernels()
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
            if status == self._kernels.TABLE_FULL:
                self._grow_table()
            else:
                # The pre-token that had no room may be longer than all there is.
                self._arena = _doubled(self._arena, at_least=len(data))
        self._distinct, self._used = map(int, state[2:])

    def total(self) -> Counter[bytes]:
        """The pre-tokens and their counts, in the order in which they were first met."""
        kept = self._arena[: self._used].tobytes()
        ends = self._ends[: self._distinct].tolist()
        pretokens = [kept[start:end] for start, end in pairwise([0, *ends])]
        return Counter(dict(zip(pretokens, self._counts[: self._distinct].tolist(), strict=True)))

    def _grow_table(self) -> None:
        grown = np.zeros(2 * len(self._slots), dtype=np.uint64)
        self._kernels.rehash(self._slots, grown)
        self._slots = grown
        self._ends, self._counts = _doubled(self._ends), _doubled(self._counts)


def _doubled(array: np.ndarray, *, at_least: int = 0) -> np.ndarray:
    """A longer array that begins with `array`; its memory is touched as it is filled."""
    longer = np.empty(len(array) + max(len(array), at_least), dtype=array.dtype)
    longer[: len(array)] = array
    return longer
