"""Distinct pre-tokens and how often each occurs, in flat arrays: no Python object for each."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class PretokenCounts:
    """A corpus as learning merges sees it; the order of the pre-tokens says nothing."""

    data: np.ndarray
    """uint8: the bytes of all pre-tokens, one after the other; none is empty, none comes twice."""
    ends: np.ndarray
    """int64: where in `data` each pre-token ends."""
    counts: np.ndarray
    """int64: how often each occurs, at least once."""

    def __len__(self) -> int:
        """How many distinct pre-tokens there are."""
        return len(self.counts)

    @classmethod
    def of(cls, counts: Mapping[bytes, int]) -> "PretokenCounts":
        """The same counts from a dictionary."""
        lengths = np.fromiter(map(len, counts), dtype=np.int64, count=len(counts))
        return cls(
            data=np.frombuffer(b"".join(counts), dtype=np.uint8),
            ends=np.cumsum(lengths, dtype=np.int64),
            counts=np.fromiter(counts.values(), dtype=np.int64, count=len(counts)),
        )

    def as_counter(self) -> Counter[bytes]:
        """The same counts as a dictionary, in order."""
        data = self.data.tobytes()
        pretokens = [data[start:end] for start, end in pairwise([0, *self.ends.tolist()])]
        return Counter(dict(zip(pretokens, self.counts.tolist(), strict=True)))

    @property
    def occurrences(self) -> int:
        """Pre-tokens in the corpus, each as often as it occurs."""
        return int(self.counts.sum())
