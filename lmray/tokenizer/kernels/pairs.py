"""Merges: a hash table of pairs, and applying it to one pre-token as `lmray.tokenizer.merging`."""

from typing import Any

import numpy as np
from numba import types

from lmray.tokenizer.kernels.compiled import helper, kernel

RANK_LIMIT = 1 << 24
"""Ranks below it fit beside a place in one word."""

NEVER = np.uint64(0xFFFFFFFFFFFFFFFF)
"""A free slot's key, and the value of a pair that does not merge: greater than all others."""

_STALE = np.uint64(0xFFFFFFFFFFFFFFFE)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_ID = np.uint64(0xFFFFFFFF)
_PLACE_BITS = np.uint64(40)
_PLACE = np.uint64((1 << 40) - 1)

PAIRS = types.uint64[::1]
"""Slots of two words: left id and right id; rank and the id of the merged token."""


@helper
def look_up(pairs: Any, left: int, right: int) -> Any:
    """Rank and merged id of a pair as one word, or NEVER."""
    mask = pairs.size - 1
    key = np.uint64(left) << _HALF | np.uint64(right)
    slot = _home(key, mask)
    while pairs[slot] != key:
        if pairs[slot] == NEVER:
            return NEVER
        slot = (slot + 2) & mask
    return pairs[slot + 1]


@helper
def merge_short(ids: Any, values: Any, size: int, pairs: Any) -> int:
    """Merges ids[:size] in place and returns how many are left; `values` is scratch as long.

    All occurrences of the earliest-learnt pair become one token before the next pair is looked for.
    """
    for place in range(size - 1):
        values[place] = look_up(pairs, ids[place], ids[place + 1])
    while True:
        best = NEVER
        for place in range(size - 1):
            best = min(best, values[place])
        if best == NEVER:
            return size
        size = _replace(ids, values, size, best)
        for place in range(size - 1):
            if values[place] == _STALE:
                values[place] = look_up(pairs, ids[place], ids[place + 1])


@helper
def _replace(ids: Any, values: Any, size: int, best: Any) -> int:
    """Merges each pair of value `best` from the left; values beside a merged token become stale."""
    read, written = 0, 0
    while read < size:
        if read + 1 < size and values[read] == best:
            ids[written] = best & _ID
            values[written] = _STALE
            if written > 0:
                values[written - 1] = _STALE
            read += 2
        else:
            ids[written] = ids[read]
            values[written] = values[read]
            read += 1
        written += 1
    return written


@helper
def merge_long(ids: Any, size: int, pairs: Any) -> int:
    """Merges ids[:size] in place and returns how many are left, in n log n.

    One occurrence at a time, ids in a linked list and candidates in a heap; there a word is a rank
    and a place, which is out of date if the pair at the place has another rank by now.
    """
    values = np.full(size, NEVER, dtype=np.uint64)
    following = np.arange(1, size + 1)
    preceding = np.arange(-1, size - 1)
    # Each merge takes one candidate out and puts in two at most.
    heap = np.empty(2 * size, dtype=np.uint64)
    length = 0
    for place in range(size - 1):
        values[place] = look_up(pairs, ids[place], ids[place + 1])
        length = _push(heap, length, values[place], place)
    while length > 0:
        top = heap[0]
        length -= 1
        _sift_down(heap, length, heap[length])
        left = np.int64(top & _PLACE)
        if values[left] == NEVER or values[left] >> _HALF != top >> _PLACE_BITS:
            continue
        right = following[left]
        ids[left] = values[left] & _ID
        ids[right] = -1
        values[left] = values[right] = NEVER
        after, before = following[right], preceding[left]
        following[left] = after
        if after < size:
            preceding[after] = left
            values[left] = look_up(pairs, ids[left], ids[after])
            length = _push(heap, length, values[left], left)
        if before >= 0:
            values[before] = look_up(pairs, ids[before], ids[left])
            length = _push(heap, length, values[before], before)
    kept = 0
    for place in range(size):
        if ids[place] >= 0:
            ids[kept] = ids[place]
            kept += 1
    return kept


@helper
def _push(heap: Any, length: int, value: Any, place: int) -> int:
    """Adds a candidate, if its pair merges at all, and returns the heap's new length."""
    if value == NEVER:
        return length
    entry = (value >> _HALF) << _PLACE_BITS | np.uint64(place)
    hole = length
    while hole > 0:
        above = (hole - 1) >> 1
        if heap[above] <= entry:
            break
        heap[hole] = heap[above]
        hole = above
    heap[hole] = entry
    return length + 1


@helper
def _sift_down(heap: Any, length: int, entry: Any) -> None:
    """Puts `entry` in the place of the top of heap[:length]."""
    hole = 0
    while True:
        below = 2 * hole + 1
        if below >= length:
            break
        if below + 1 < length and heap[below + 1] < heap[below]:
            below += 1
        if entry <= heap[below]:
            break
        heap[hole] = heap[below]
        hole = below
    heap[hole] = entry


@helper
def _home(key: Any, mask: int) -> Any:
    """The place to look first: even, within `mask`."""
    mixed = key * _MIX
    return np.int64((mixed ^ mixed >> _HALF) >> np.uint64(16) & _ID) * 2 & mask


@kernel(types.void(PAIRS, types.uint64[::1], types.uint64[::1]))
def fill_pairs(pairs: Any, keys: Any, values: Any) -> None:
    """Puts distinct keys with their values into `pairs`, whose keys are NEVER."""
    mask = pairs.size - 1
    for key, value in zip(keys, values):  # noqa: B905 - numba has no strict
        slot = _home(key, mask)
        while pairs[slot] != NEVER:
            slot = (slot + 2) & mask
        pairs[slot] = key
        pairs[slot + 1] = value
