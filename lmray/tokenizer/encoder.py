"""Encoding with the kernels: a tokenizer's tables as flat arrays, and the cache they share."""

import threading
from collections.abc import Mapping

import numpy as np

from lmray.tokenizer import native
from lmray.tokenizer.classes import SPACE, character_classes
from lmray.tokenizer.merging import MergeTable
from lmray.tokenizer.specials import SpecialTokens

MOST = 1 << 17
"""Pre-tokens that an encoder keeps the ids of, with the memory that takes (about 12 MB)."""

_FIRST_WORDS = 1 << 15
_OUT = 1 << 16

_MARGIN = 8
"""Bytes after a pre-token that decide where it ends, beside white space at the end of a text."""


class NoSuchByteError(Exception):
    """A pre-token, its argument, holds a byte that is no token."""


class Encoder:
    """Encodes bytes by a pattern that has kernels; threads that share one take turns."""

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
        """Loads the kernels; remembers up to `most` pre-tokens; ids come as `dtype`."""
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
        self._most = most
        # A table no larger than need be: what lies close together is sooner found.
        self._most_words = 2 * _power_of_two(most) * self._kernels.WIDTH
        self._slots = np.zeros(min(_FIRST_WORDS, self._most_words), dtype=np.uint64)
        self._dtype = np.dtype(dtype)
        self._out = np.empty(_OUT, dtype=np.int32)
        # What fills the arenas before the slots are taken is rare: long, or of many tokens.
        self._arena = np.empty(max(self._kernels.LONGEST, 16 * most), dtype=np.uint8)
        self._kept_ids = np.empty(max(self._kernels.LONGEST, 4 * most), dtype=np.int32)
        self._lock = threading.Lock()
        self._state = np.zeros(7, dtype=np.int64)

    @staticmethod
    def can_hold(num_ids: int, num_merges: int) -> bool:
        """Whether ids and ranks are small enough for the tables."""
        kernels = native.kernels()
        return num_ids <= kernels.ID_LIMIT and num_merges <= kernels.RANK_LIMIT

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

    def _encode(self, data: bytes, cuts: np.ndarray, last: int) -> tuple[np.ndarray, int]:
        """The ids of what ends up to `last` or with a special token; how many bytes those are."""
        kernels, text = self._kernels, np.frombuffer(data, dtype=np.uint8)
        parts: list[np.ndarray] = []
        with self._lock:
            self._state[:4] = 0
            while True:
                status = kernels.encode(
                    text,
                    cuts,
                    last,
                    self._most,
                    self._out,
                    self._state,
                    self._slots,
                    self._arena,
                    self._kept_ids,
                    self._byte_ids,
                    self._pairs,
                    self._byte_ranks,
                    self._merged,
                    self._classes,
                    self._rules,
                )
                _cut, place, made, end = map(int, self._state[:4])
                parts.append(self._out[:made].astype(self._dtype))
                if status == kernels.TABLE_FULL:
                    self._grow()
                elif status == kernels.OUT_FULL and made == 0:
                    # A pre-token that is longer than the buffer.
                    self._out = np.empty(2 * len(self._out), dtype=np.int32)
                elif status == kernels.NO_SUCH_BYTE:
                    raise NoSuchByteError(data[place:end])
                elif status != kernels.OUT_FULL:
                    break
        return np.concatenate(parts) if len(parts) > 1 else parts[0], place

    def _grow(self) -> None:
        larger = np.zeros(min(4 * len(self._slots), self._most_words), dtype=np.uint64)
        self._kernels.rehash(self._slots, larger)
        self._slots = larger


def _power_of_two(at_least: int) -> int:
    return 1 << (at_least - 1).bit_length()


def _bytes_of_space() -> bytes:
    """Every byte that is in the UTF-8 of white space."""
    return "".join(map(chr, np.flatnonzero(character_classes() == SPACE))).encode()
