"""Adding one table's counts of pre-tokens to another's."""

from typing import Any

import numpy as np
from numba import types

from lmray.tokenizer.kernels.compiled import BYTES, kernel
from lmray.tokenizer.kernels.count import ARENA_FULL, ARENA_USED, DISTINCT, PLACE
from lmray.tokenizer.kernels.table import DONE, TABLE, TABLE_FULL, WIDTH, find, key_of, take

_INTEGERS = types.Array(types.int64, 1, "C", readonly=True)


@kernel(
    types.int64(
        BYTES,
        _INTEGERS,
        _INTEGERS,
        types.int64[::1],
        TABLE,
        types.uint8[::1],
        types.int64[::1],
        types.int64[::1],
    )
)
def add_counts(
    data: Any,
    data_ends: Any,
    amounts: Any,
    state: Any,
    slots: Any,
    arena: Any,
    ends: Any,
    counts: Any,
) -> int:
    """Adds amounts[i] occurrences of the pre-token that ends at data_ends[i], from PLACE on.

    The table and `state` are as in `count`; PLACE counts pre-tokens here.
    """
    distinct, used = state[DISTINCT], state[ARENA_USED]
    status = DONE
    while state[PLACE] < data_ends.size:
        number = state[PLACE]
        place = data_ends[number - 1] if number > 0 else np.int64(0)
        length = data_ends[number] - place
        key = key_of(data, place, length)
        slot = find(slots, arena, data, place, length, key)
        if slot >= 0:
            counts[np.int64(slots[slot + 3])] += amounts[number]
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
            counts[distinct] = amounts[number]
            distinct += 1
        state[PLACE] += 1
    state[DISTINCT], state[ARENA_USED] = distinct, used
    return status
