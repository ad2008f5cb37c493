"""Applying merges to one pre-token: always the earliest-learnt pair, the leftmost first."""

import heapq
from collections.abc import Mapping
from itertools import pairwise

Pair = tuple[int, int]
"""Two neighbouring token ids."""

MergeTable = Mapping[Pair, tuple[int, int]]
"""For each pair that merges: its rank (0 is learnt first) and the id it becomes."""

_LONG = 64
_NEVER = (1 << 62, -1)


def merge(ids: list[int], table: MergeTable) -> list[int]:
    """Merges until no pair of neighbours is in `table`."""
    return _merge_long(ids, table) if len(ids) > _LONG else _merge_short(ids, table)


def replace_pair(ids: list[int], pair: Pair, merged: int) -> list[int]:
    """`ids` with `merged` for each occurrence of `pair`, from the left and without overlap."""
    replaced = []
    place, last = 0, len(ids) - 1
    while place <= last:
        if place < last and ids[place] == pair[0] and ids[place + 1] == pair[1]:
            replaced.append(merged)
            place += 2
        else:
            replaced.append(ids[place])
            place += 1
    return replaced


def _merge_short(ids: list[int], table: MergeTable) -> list[int]:
    """Scans all pairs before each merge: quadratic, and the fastest way for a word."""
    while len(ids) > 1:
        pair = min(pairwise(ids), key=lambda pair: table.get(pair, _NEVER))
        if pair not in table:
            break
        ids = replace_pair(ids, pair, table[pair][1])
    return ids


def _merge_long(ids: list[int], table: MergeTable) -> list[int]:
    """Keeps candidates in a heap and ids in a linked list: n log n, for long runs and base64."""
    ids = list(ids)
    end = len(ids)
    following = list(range(1, end + 1))
    preceding = list(range(-1, end - 1))
    candidates = [
        (table[pair][0], place, pair) for place, pair in enumerate(pairwise(ids)) if pair in table
    ]
    heapq.heapify(candidates)

    while candidates:
        _rank, left, pair = heapq.heappop(candidates)
        right = following[left]
        # Places whose ids an earlier merge has changed or absorbed no longer hold this pair.
        if right == end or (ids[left], ids[right]) != pair:
            continue
        ids[left], ids[right] = table[pair][1], -1
        after, before = following[right], preceding[left]
        following[left] = after
        if after < end:
            preceding[after] = left
            _consider(candidates, table, left, (ids[left], ids[after]))
        if before >= 0:
            _consider(candidates, table, before, (ids[before], ids[left]))
    return [token for token in ids if token >= 0]


def _consider(
    candidates: list[tuple[int, int, Pair]], table: MergeTable, place: int, pair: Pair
) -> None:
    if pair in table:
        heapq.heappush(candidates, (table[pair][0], place, pair))
