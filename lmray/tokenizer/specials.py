"""Special tokens in bytes: where they are, and what of a text's end may yet become one."""

import re
from collections.abc import Mapping

import numpy as np


class SpecialTokens:
    """Finds special tokens, the longest first where several begin at one place.

    UTF-8 never holds one character's bytes inside another's, so in bytes, valid or not, they are
    where they are in the text.
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = {token.encode(): number for token, number in ids.items()}
        self._tokens = sorted(self._ids, key=len, reverse=True)
        # An alternation takes the first alternative that fits: the longest has to come first.
        self._any = re.compile(b"|".join(map(re.escape, self._tokens)) or b"(?!)")
        self._longest = max(map(len, self._tokens), default=0)

    def cuts(self, data: bytes) -> np.ndarray:
        """Start, end and id of each, a row each, and a row of the text's end twice and -1."""
        found = [row for match in self._any.finditer(data) for row in self._row(match)]
        rows = np.array([*found, len(data), len(data), -1], dtype=np.int64)
        return rows.reshape(-1, 3)

    def settled_cuts(self, data: bytes) -> np.ndarray:
        """`cuts` of as much of `data` as is the same whatever follows it.

        The last row stands for the end of that much.
        """
        rows = self.cuts(data)
        start, settled = 0, 0
        # Only where the longest token could still begin need the end be looked at.
        near = len(data) - self._longest
        while settled < len(rows) - 1 and rows[settled, 1] <= near:
            start = rows[settled, 1]
            settled += 1
        while True:
            horizon = self._cut_off(data, int(start))
            if settled == len(rows) - 1 or rows[settled, 0] >= horizon:
                return np.vstack([rows[:settled], [[horizon, horizon, -1]]])
            start = rows[settled, 1]
            settled += 1

    def _row(self, match: re.Match[bytes]) -> tuple[int, int, int]:
        start, end = match.span()
        return start, end, self._ids[match[0]]

    def _cut_off(self, data: bytes, start: int) -> int:
        """Where the end of `data` may have cut off a special token, or the length of `data`."""
        for place in range(max(start, len(data) - self._longest + 1), len(data)):
            beginning = data[place:]
            if any(token != beginning and token.startswith(beginning) for token in self._tokens):
                return place
        return len(data)
