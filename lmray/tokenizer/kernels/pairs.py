"""Merges: a hash table of pairs, and applying it to one pre-token as `lmray.tokenizer.merging`."""

from typing import Any

import numpy as np
from numba import types

from lmray.native.compiled import helper, kernel
from lmray.tokenizer.kernels.compiled import allocating_helper

ID_LIMIT = (1 << 20) - 1
RANK_LIMIT = (1 << 24) - 1
"""Ids and ranks below these fit into one word: a pair and its rank."""

FREE = np.uint64(0xFFFFFFFFFFFFFFFF)
"""A free slot of the table; others hold the left id, the right id and the rank."""

NEVER = (1 << 31) - 1
"""The rank of a pair that does not merge: greater than all others."""

_ID_BITS, _RANK_BITS, _PLACE_BITS = np.uint64(20), np.uint64(24), np.uint64(40)
_RANK = np.uint64((1 << 24) - 1)
_PLACE = np.uint64((1 << 40) - 1)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)

PAIRS = types.uint64[::1]
RANKS = types.int32[::1]
"""The types of the table and of an array of ranks."""


@helper
def look_up(pairs: Any, left: int, right: int) -> Any:
    """The rank of a pair, or NEVER."""
    mask = pairs.size - 1
    key = np.uint64(left) << _ID_BITS | np.uint64(right)
    slot = _home(key, mask)
    while pairs[slot] >> _RANK_BITS != key:
        if pairs[slot] == FREE:
            return NEVER
        slot = (slot + 1) & mask
    return np.int64(pairs[slot] & _RANK)


@helper
def merge_short(ids: Any, ranks: Any, size: int, pairs: Any, merged: Any) -> int:
    """Merges ids[:size] in place and returns how many are left; `ranks` are those of its pairs.

    All occurrences of the earliest-learnt pair become one token before the next pair is looked for.
    """
    while True:
        best, place = NEVER, 0
        for other in range(size - 1):
            if ranks[other] < best:
                best, place = ranks[other], other
        if best == NEVER:
            return size
        more = True
        while more:
            more = _merge_at(ids, ranks, size, place, best, pairs, merged)
            size -= 1
            place += 1
            while more and ranks[place] != best:
                place += 1


@helper
def _merge_at(
    ids: Any, ranks: Any, size: int, place: int, rank: int, pairs: Any, merged: Any
) -> bool:
    """Merges the pair at `place`; says whether there is one of the same rank after it."""
    token, more = merged[rank], False
    for other in range(place + 2, size):
        ids[other - 1] = ids[other]
    for other in range(place + 2, size - 1):
        ranks[other - 1] = ranks[other]
        more |= ranks[other] == rank
    ids[place] = token
    if place > 0:
        ranks[place - 1] = look_up(pairs, ids[place - 1], token)
    if place + 2 < size:
        ranks[place] = look_up(pairs, token, ids[place + 1])
    return more


@allocating_helper
def merge_long(ids: Any, ranks: Any, size: int, pairs: Any, merged: Any) -> int:
    """`merge_short` in n log n: one occurrence at a time, ids in a linked list, pairs in a heap.

    There a word is a rank and a place, out of date if the pair at the place has another rank now.
    """
    following = np.arange(1, size + 1)
    preceding = np.arange(-1, size - 1)
    # Each merge takes one candidate out and puts in two at most.
    heap = np.empty(2 * size, dtype=np.uint64)
    length = 0
    for place in range(size - 1):
        length = _push(heap, length, ranks[place], place)
    while length > 0:
        top = heap[0]
        length -= 1
        _sift_down(heap, length, heap[length])
        left, rank = np.int64(top & _PLACE), np.int64(top >> _PLACE_BITS)
        if ranks[left] != rank:
            continue
        right = following[left]
        ids[left], ids[right] = merged[rank], -1
        ranks[left] = ranks[right] = NEVER
        after, before = following[right], preceding[left]
        following[left] = after
        if after < size:
            preceding[after] = left
            ranks[left] = look_up(pairs, ids[left], ids[after])
            length = _push(heap, length, ranks[left], left)
        if before >= 0:
            ranks[before] = look_up(pairs, ids[before], ids[left])
            length = _push(heap, length, ranks[before], before)
    kept = 0
    for place in range(size):
        if ids[place] >= 0:
            ids[kept] = ids[place]
            kept += 1
    return kept


@helper
def _push(heap: Any, length: int, rank: int, place: int) -> int:
    """Adds a candidate, if its pair merges at all, and returns the heap's new length."""
    if rank == NEVER:
        return length
    entry = np.uint64(rank) << _PLACE_BITS | np.uint64(place)
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
    """The slot to look at first."""
    return np.int64(key * _MIX >> _HALF) & mask


@kernel(types.void(PAIRS, types.int64[:, ::1], types.int64[::1], RANKS, RANKS))
def fill_pairs(pairs: Any, each: Any, ranks: Any, byte_ids: Any, byte_ranks: Any) -> None:
    """Puts distinct pairs with their ranks into `pairs`, which is free.

    And fills `byte_ranks` with the ranks of pairs of bytes, 256 times the first and the second.
    """
    mask = pairs.size - 1
    for place in range(ranks.size):
        key = np.uint64(each[place, 0]) << _ID_BITS | np.uint64(each[place, 1])
        slot = _home(key, mask)
        while pairs[slot] != FREE:
            slot = (slot + 1) & mask
        pairs[slot] = key << _RANK_BITS | np.uint64(ranks[place])
    for first in range(256):
        for second in range(256):
            rank = NEVER
            if byte_ids[first] >= 0 and byte_ids[second] >= 0:
                rank = look_up(pairs, byte_ids[first], byte_ids[second])
            byte_ranks[first << 8 | second] = rank
