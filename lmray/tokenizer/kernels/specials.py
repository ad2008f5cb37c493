"""Finding special tokens, 64 places at once."""

from typing import Any

import numpy as np
from numba import types

from lmray.native.compiled import helper, kernel
from lmray.tokenizer.kernels.compiled import BYTES, load8, trailing_zeros, within64
from lmray.tokenizer.kernels.window import NONE, ONE


@helper
def _candidates(data: Any, start: int, firsts: Any) -> Any:
    """At which of the 64 places from `start` on a special token could begin, as bits."""
    found = NONE
    if start + 64 <= data.size:
        for first in firsts:
            found |= within64(data, start, 0, np.int64(first), 1)
        return found
    for place in range(start, data.size):
        for first in firsts:
            if data[place] == first:
                found |= ONE << np.uint64(place - start)
    return found


@helper
def _token_at(data: Any, start: int, tokens: Any, edges: Any) -> int:
    """Which token begins at `start`, the first in order, or -1."""
    for token in range(edges.size - 1):
        length = edges[token + 1] - edges[token]
        if start + length <= data.size:
            same = 0
            while same < length and load8(data, start + same) == tokens[edges[token] + same]:
                same += 1
            if same == length:
                return token
    return -1


@kernel(types.int64(BYTES, BYTES, BYTES, types.int64[::1], types.int64[::1], types.int64[:, ::1]))
def find_specials(data: Any, firsts: Any, tokens: Any, edges: Any, ids: Any, cuts: Any) -> int:
    """Puts start, end and id of each special token into `cuts` and returns how many there are.

    Token i is tokens[edges[i] : edges[i + 1]]; at one place the first in order is found, and none
    begins within another. `firsts` are their different first bytes. What is beyond the last row of
    `cuts` is only counted.
    """
    found, end = 0, 0
    for window in range(0, data.size, 64):
        bits = _candidates(data, window, firsts)
        while bits != NONE:
            place = window + trailing_zeros(bits)
            bits &= bits - ONE
            if place < end:
                continue
            token = _token_at(data, place, tokens, edges)
            if token >= 0:
                end = place + edges[token + 1] - edges[token]
                if found < len(cuts):
                    cuts[found, 0], cuts[found, 1], cuts[found, 2] = place, end, ids[token]
                found += 1
    return found
