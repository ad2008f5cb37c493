"""Counting the pre-tokens of a text, special tokens left out."""

from typing import Any

import numpy as np
from numba import types

from lmray.native.compiled import helper
from lmray.tokenizer.kernels.compiled import BYTES, generic, load_word, trailing_zeros
from lmray.tokenizer.kernels.scan import CUTS, fill, next_end
from lmray.tokenizer.kernels.table import (
    DONE,
    SHORT,
    TABLE,
    TABLE_FULL,
    WIDTH,
    find,
    find_short,
    key_of,
    take,
)
from lmray.tokenizer.kernels.window import NONE, ONE

ARENA_FULL = 2
"""What `count` returns where the bytes of a further pre-token have no room."""

CUT, PLACE, DISTINCT, ARENA_USED = range(4)
"""Places in the state: special tokens passed, bytes read, pre-tokens met, bytes of theirs kept."""


@helper
def add(
    data: Any,
    place: int,
    length: int,
    amount: int,
    slots: Any,
    arena: Any,
    ends: Any,
    counts: Any,
    distinct: int,
    used: int,
) -> tuple[int, int, int]:
    """Counts `amount` of a pre-token; whether there was room, and what is now met and used."""
    key = key_of(data, place, length)
    slot = find(slots, arena, data, place, length, key)
    if slot >= 0:
        counts[np.int64(slots[slot + 3])] += amount
        return DONE, distinct, used
    if distinct == len(counts) or 2 * WIDTH * (distinct + 1) > slots.size:
        return TABLE_FULL, distinct, used
    if used + length > arena.size:
        return ARENA_FULL, distinct, used
    take(slots, ~slot, key, used, np.uint64(distinct))
    for byte in range(length):
        arena[used + byte] = data[place + byte]
    ends[distinct] = used + length
    counts[distinct] = amount
    return DONE, distinct + 1, used + length


@helper
def _count_known(
    data: Any, place: int, window: int, bits: Any, slots: Any, counts: Any
) -> tuple[int, Any]:
    """Counts pre-tokens of a window up to the first that is not simply looked up.

    Returns where that starts, and the bits that are left.
    """
    while bits != NONE:
        end = window + trailing_zeros(bits)
        length = end - place
        if length > SHORT or place + SHORT > data.size:
            break
        slot = find_short(slots, data, place, length)
        if slot < 0:
            break
        counts[np.int64(load_word(slots, slot + 3))] += 1
        place = end
        bits &= bits - ONE
    return place, bits


@generic
def count(
    data: Any,
    cuts: Any,
    state: Any,
    slots: Any,
    arena: Any,
    ends: Any,
    counts: Any,
    classes: Any,
    rules: Any,
) -> int:
    """Adds the pre-tokens of `data` to a table, from where `state` says on.

    A row of `cuts` is the start and end of a special token; the last row stands for the end of the
    text. Pre-token i, numbered as met, ends at ends[i] in the arena and occurs counts[i] times; its
    number is its slot's value. At most half of the slots are taken.
    """
    place, distinct, used = state[PLACE], state[DISTINCT], state[ARENA_USED]
    status = DONE
    while status == DONE and state[CUT] < len(cuts):
        stop = cuts[state[CUT], 0]
        window, bits = place, NONE
        while place < stop:
            window, bits = fill(data, place, stop, classes, rules, window, bits)
            if bits != NONE:
                place, bits = _count_known(data, place, window, bits, slots, counts)
                if bits == NONE:
                    continue
            end, bits = next_end(data, place, stop, classes, rules, window, bits)
            status, distinct, used = add(
                data, place, end - place, 1, slots, arena, ends, counts, distinct, used
            )
            if status != DONE:
                break
            place = end
        if status == DONE:
            place = cuts[state[CUT], 1]
            state[CUT] += 1
    state[PLACE], state[DISTINCT], state[ARENA_USED] = place, distinct, used
    return status


def count_signature(rules: Any) -> Any:
    """The signature of `count` for a pattern."""
    return types.int64(
        BYTES,
        CUTS,
        types.int64[::1],
        TABLE,
        types.uint8[::1],
        types.int64[::1],
        types.int64[::1],
        BYTES,
        rules,
    )
