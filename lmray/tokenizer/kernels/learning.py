"""What learning merges keeps in memory.

Every byte of the distinct pre-tokens has a cell, and there is an empty one before each pre-token
and after the last. A token covers as many cells as it has bytes, and its first and last cell name
it: so both its neighbours are found without a link. The first also names the pair that the
token forms with the next one.

The postings of a pair are the cells at which it begins, ascending. All occurrences of a pair arise
when the younger of its tokens does, so they lie together and none is ever added; one that
is gone is seen from its cell, which names another pair.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import from_dtype, types

from lmray.tokenizer.kernels.compiled import BYTES

EMPTY = -1
"""The token of an empty cell."""

NONE = np.uint32(0xFFFFFFFF)
"""No pair."""

CELL = np.dtype(
    [
        ("token", np.int32),  # that begins or ends here, or EMPTY; within a token, anything
        ("pretoken", np.uint32),  # which one this is
        ("pair", np.uint32),  # that begins here, or NONE
    ],
    align=True,
)

PAIR = np.dtype(
    [
        ("count", np.int64),  # how often it occurs in the corpus now; 0 once it is merged
        ("start", np.int64),  # of its postings; they end where the next pair's start
        ("left", np.int32),
        ("right", np.int32),
        ("following", np.uint32),  # the next pair in the same bucket of the queue, or NONE
    ],
    align=True,
)

TOKEN = np.dtype(
    [
        ("prefix", np.uint64),  # its first eight bytes, the first one highest, zeros after the last
        ("place", np.int64),  # where in the bytes of the pre-tokens it occurs
        ("length", np.int64),  # in bytes
    ],
    align=True,
)

NEIGHBOUR = np.dtype(
    [
        ("number", np.int64),  # places where it is beside the new token; 0 between merges
        ("count", np.int64),  # how often that is in the corpus; 0 between merges
        ("pair", np.int64),  # the number of the new pair; -1 for a token that was not met
    ],
    align=True,
)

NUM_TOKENS, NUM_PAIRS, NUM_TOP, GREATEST, PAIRS_WANTED, POSTINGS_WANTED, STATE_SIZE = range(7)
"""Places in the state: tokens, pairs, pairs in the queue's top, and their count; and for how many
pairs and postings there was no room."""


class Learning(NamedTuple):
    """All arrays that the kernels share; the number of an element is its place."""

    data: Any
    """uint8: the bytes of the distinct pre-tokens."""
    counts: Any
    """int64: how often each pre-token occurs."""
    by_bytes: Any
    """bool: whether of equally frequent pairs the one of the greatest bytes is merged first."""
    cells: Any
    postings: Any
    """uint32: cells."""
    pairs: Any
    tokens: Any
    merges: Any
    """int32, (merges, 2): the two tokens of each."""
    buckets: Any
    """uint32: the first pair of each of the queue's 64 buckets, or NONE."""
    top: Any
    """uint32: the pairs of the greatest count, as a binary heap."""
    neighbours: Any
    """Of the new token, for each token, as the one before it and as the one after it."""
    met: Any
    """int32: which of these there are, in the order in which they are met."""
    state: Any


COUNTS = types.Array(types.int64, 1, "C", readonly=True)
_NUMBERS = types.uint32[::1]
LEARNING = types.NamedTuple(
    (
        BYTES,
        COUNTS,
        types.boolean,
        from_dtype(CELL)[::1],
        _NUMBERS,
        from_dtype(PAIR)[::1],
        from_dtype(TOKEN)[::1],
        types.int32[:, ::1],
        _NUMBERS,
        _NUMBERS,
        from_dtype(NEIGHBOUR)[::1],
        types.int32[::1],
        types.int64[::1],
    ),
    Learning,
)
