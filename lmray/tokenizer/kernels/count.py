"""Counting the pre-tokens of a text, special tokens left out."""

from typing import Any

import numpy as np
from numba import types

from lmray.tokenizer.kernels.compiled import BYTES, generic
from lmray.tokenizer.kernels.scan import CUTS, next_end
from lmray.tokenizer.kernels.table import (
    DONE,
    TABLE,
    TABLE_FULL,
    WIDTH,
    find,
    key_of,
    take,
)
from lmray.tokenizer.kernels.window import NONE

ARENA_FULL = 2
"""What `count` returns where the bytes of a further pre-token have no room."""

CUT, PLACE, DISTINCT, ARENA_USED = range(4)
"""Places in the state: special tokens passed, bytes read, pre-tokens met, bytes of theirs kept."""


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
            end, window, bits = next_end(data, place, stop, classes, rules, window, bits)
            length = end - place
            key = key_of(data, place, length)
            slot = find(slots, arena, data, place, length, key)
            if slot >= 0:
                counts[np.int64(slots[slot + 3])] += 1
            else:
                if distinct == len(counts) or 2 * WIDTH * (distinct + 1) > slots.size:
                    status = TABLE_FULL
                    break
                if used + length > arena.size:
                    status = ARENA_FULL
                    break
                take(slots, ~slot, key, used, np.uint64(distinct))
                for byte in range(length):
                    arena[used + byte] = data[place + byte]
                used += length
                ends[distinct] = used
                counts[distinct] = 1
                distinct += 1
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
