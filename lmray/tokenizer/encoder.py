"""Encoding with the kernels: a tokenizer's tables as flat arrays, and a cache for each thread."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType

import numpy as np

from lmray.tokenizer import native
from lmray.tokenizer.classes import SPACE, character_classes
from lmray.tokenizer.merging import MergeTable
from lmray.tokenizer.specials import SpecialTokens

MOST = 1 << 17
"""Pre-tokens that a thread keeps the ids of, with the memory that takes (about 12 MB)."""

_BETWEEN = b"\xff"

_FIRST_WORDS = 1 << 15
_OUT = 1 << 16

_MARGIN = 8
"""Bytes after a pre-token that decide where it ends, beside white space at the end of a text."""


class NoSuchByteError(Exception):
    """A pre-token, its argument, holds a byte that is no token."""


class Encoder:
    """Encodes bytes by a pattern that has kernels; threads share tables, each has its own cache."""

    def __init__(
        self,
        byte_ids: Mapping[int, int],
        merges: MergeTable,
        special_ids: Mapping[str, int],
        *,
        pattern: str,
        dtype: str = "uint32",
        most: int = MOST,
    ) -> None:
        """Loads the kernels; a thread remembers up to `most` pre-tokens; ids come as `dtype`."""
        self._kernels = native.kernels()
        self._specials = SpecialTokens(special_ids)
        self._classes = character_classes()
        self._rules = native.rules(pattern)
        self._space = _bytes_of_space()
        self._byte_ids = np.full(256, -1, dtype=np.int32)
        self._byte_ids[list(byte_ids)] = list(byte_ids.values())
        values = np.array(list(merges.values()), dtype=np.int64).reshape(-1, 2)
        self._merged = np.zeros(values[:, 0].max(initial=0) + 1, dtype=np.int32)
        self._merged[values[:, 0]] = values[:, 1]
        table = 2 * _power_of_two(len(values) + 1)
        self._pairs = np.full(table, self._kernels.FREE, dtype=np.uint64)
        self._byte_ranks = np.empty(1 << 16, dtype=np.int32)
        self._kernels.fill_pairs(
            self._pairs,
            np.array(list(merges), dtype=np.int64).reshape(-1, 2),
            values[:, 0].copy(),
            self._byte_ids,
            self._byte_ranks,
        )
        self._dtype = np.dtype(dtype)
        self._most = most
        self._idle: list[_Cache] = [_Cache(most, self._kernels)]

    @staticmethod
    def can_hold(num_ids: int, num_merges: int) -> bool:
        """Whether ids and ranks are small enough for the tables."""
        kernels = native.kernels()
        return num_ids <= kernels.ID_LIMIT and num_merges <= kernels.RANK_LIMIT

    def with_specials(self, special_ids: Mapping[str, int]) -> "Encoder":
        """The same for other special tokens; tables and caches are shared."""
        other = copy.copy(self)
        other._specials = SpecialTokens(special_ids)
        return other

    def encode(self, data: bytes) -> np.ndarray:
        """The ids of a whole text.

        Raises NoSuchByteError where the vocabulary lacks one of its bytes.
        """
        return self._encode(data, self._specials.cuts(data), len(data))[0]

    def encode_settled(self, data: bytes) -> tuple[np.ndarray, int]:
        """The ids that are the same whatever follows `data`, and how many of its bytes those are.

        `data` ends where a character does. Exact where `Pretokenizer.cut_settled` is.
        """
        cuts = self._specials.settled_cuts(data)
        settled = len(data[: cuts[-1, 0]].rstrip(self._space)) - _MARGIN
        return self._encode(data, cuts, settled)

    def encode_texts(self, texts: Sequence[bytes]) -> list[np.ndarray]:
        """The ids of each of several texts of valid UTF-8, in one call of the kernel.

        A call costs as much as a few kilobytes of text.
        """
        # No special token lies across a byte that is not UTF-8, and no text holds one.
        joined = _BETWEEN.join(texts)
        edges = np.cumsum([len(text) + 1 for text in texts])
        specials = self._specials.cuts(joined)
        cuts = np.concatenate([specials, np.stack([edges - 1, edges, edges * 0 - 1], axis=1)])
        # The last of the edges is the end of the text, whose row stands for it as well.
        cuts = cuts[np.argsort(cuts[:, 0], kind="stable")][:-1]
        blocks = [block.copy() for block, _place in self._blocks(joined, cuts, len(joined))]
        ids = np.concatenate(blocks)
        found = np.flatnonzero(ids < 0).tolist()
        ids = ids.astype(self._dtype)
        return [
            ids[start:end].copy()
            for start, end in zip([0, *(i + 1 for i in found)], [*found, len(ids)], strict=True)
        ]

    def _encode(self, data: bytes, cuts: np.ndarray, last: int) -> tuple[np.ndarray, int]:
        """The ids of what ends up to `last` or with a special token; how many bytes those are."""
        parts, read = [], 0
        for block, place in self._blocks(data, cuts, last):
            parts.append(block.astype(self._dtype))
            read = place
        return np.concatenate(parts) if len(parts) > 1 else parts[0], read

    def _blocks(self, data: bytes, cuts: np.ndarray, last: int) -> Iterator[tuple[np.ndarray, int]]:
        """At least one block of ids, each valid until the next, and the bytes read so far."""
        kernels, text = self._kernels, np.frombuffer(data, dtype=np.uint8)
        cache = self._cache()
        try:
            cache.state[:4] = 0
            while True:
                status = kernels.encode(
                    text,
                    cuts,
                    last,
                    self._most,
                    cache.out,
                    cache.state,
                    cache.slots,
                    cache.arena,
                    cache.kept_ids,
                    self._byte_ids,
                    self._pairs,
                    self._byte_ranks,
                    self._merged,
                    self._classes,
                    self._rules,
                )
                _cut, place, made, end = map(int, cache.state[:4])
                if status == kernels.NO_SUCH_BYTE:
                    raise NoSuchByteError(data[place:end])
                yield cache.out[:made], place
                if status == kernels.TABLE_FULL:
                    cache.grow()
                elif status == kernels.OUT_FULL and made == 0:
                    # A pre-token that is longer than the buffer.
                    cache.out = np.empty(2 * len(cache.out), dtype=np.int32)
                elif status != kernels.OUT_FULL:
                    break
        finally:
            self._idle.append(cache)

    def _cache(self) -> "_Cache":
        """One that no other thread has: taking from a list is atomic."""
        try:
            return self._idle.pop()
        except IndexError:
            return _Cache(self._most, self._kernels)


class _Cache:
    """What one thread at a time encodes with: pre-tokens met and their ids, and room for more."""

    def __init__(self, most: int, kernels: ModuleType) -> None:
        self._kernels = kernels
        # A table no larger than need be: what lies close together is sooner found.
        self._most_words = 2 * _power_of_two(most) * kernels.WIDTH
        self.slots = np.zeros(min(_FIRST_WORDS, self._most_words), dtype=np.uint64)
        self.out = np.empty(_OUT, dtype=np.int32)
        # What fills the arenas before the slots are taken is rare: long, or of many tokens.
        self.arena = np.empty(max(kernels.LONGEST, 16 * most), dtype=np.uint8)
        self.kept_ids = np.empty(max(kernels.LONGEST, 4 * most), dtype=np.int32)
        self.state = np.zeros(7, dtype=np.int64)

    def grow(self) -> None:
        """Makes the table larger."""
        larger = np.zeros(min(4 * len(self.slots), self._most_words), dtype=np.uint64)
        self._kernels.rehash(self.slots, larger)
        self.slots = larger


def _power_of_two(at_least: int) -> int:
    return 1 << (at_least - 1).bit_length()


def _bytes_of_space() -> bytes:
    """Every byte that is in the UTF-8 of white space."""
    return "".join(map(chr, np.flatnonzero(character_classes() == SPACE))).encode()
