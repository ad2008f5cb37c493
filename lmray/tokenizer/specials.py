"""Special tokens in bytes: where they are, and what of a text's end may yet become one."""

from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from lmray.tokenizer import native

_USUAL = 512
"""Bytes of text from one to the next, at least; where there are more of them, they are counted."""


class SpecialTokens:
    """Finds special tokens, the longest first where several begin at one place.

    UTF-8 never holds one character's bytes inside another's, so in bytes, valid or not, they are
    where they are in the text.
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        """Loads the kernels."""
        self._kernels = native.kernels()
        by_bytes = {token.encode(): number for token, number in ids.items()}
        self._tokens = sorted(by_bytes, key=len, reverse=True)
        self._longest = len(self._tokens[0]) if self._tokens else 0
        self._firsts = _bytes(bytes({token[0] for token in self._tokens}))
        self._joined = _bytes(b"".join(self._tokens))
        self._edges = np.array([0, *accumulate(map(len, self._tokens))], dtype=np.int64)
        self._ids = np.array([by_bytes[token] for token in self._tokens], dtype=np.int64)

    def cuts(self, data: bytes) -> np.ndarray:
        """Start, end and id of each, a row each, and a row of the text's end twice and -1."""
        found = len(data) // _USUAL
        while True:
            rows = np.empty((found + 1, 3), dtype=np.int64)
            found = self._kernels.find_specials(
                _bytes(data), self._firsts, self._joined, self._edges, self._ids, rows
            )
            if found < len(rows):
                rows[found] = len(data), len(data), -1
                return rows[: found + 1]

    def settled_cuts(self, data: bytes) -> np.ndarray:
        """`cuts` of as much of `data` as is the same whatever follows it.

        The last row stands for the end of that much.
        """
        rows = self.cuts(data)
        start = settled = 0
        while True:
            # Before the last few bytes no token can have been cut off.
            near_end = settled == len(rows) - 1 or rows[settled, 0] > len(data) - self._longest
            horizon = self._cut_off(data, start) if near_end else len(data)
            if settled == len(rows) - 1 or rows[settled, 0] >= horizon:
                rows[settled] = horizon, horizon, -1
                return rows[: settled + 1]
            start = int(rows[settled, 1])
            settled += 1

    def _cut_off(self, data: bytes, start: int) -> int:
        """Where the end of `data` may have cut off a special token, or the length of `data`."""
        for place in range(max(start, len(data) - self._longest + 1), len(data)):
            beginning = data[place:]
            if any(token != beginning and token.startswith(beginning) for token in self._tokens):
                return place
        return len(data)


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)
