"""Adding one table's counts of pre-tokens to another's."""

from typing import Any

import numpy as np
from numba import types

from lmray.native.compiled import kernel
from lmray.tokenizer.kernels.compiled import BYTES
from lmray.tokenizer.kernels.count import ARENA_USED, DISTINCT, PLACE, add
from lmray.tokenizer.kernels.table import DONE, TABLE

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
        status, distinct, used = add(
            data, place, length, amounts[number], slots, arena, ends, counts, distinct, used
        )
        if status != DONE:
            break
        state[PLACE] += 1
    state[DISTINCT], state[ARENA_USED] = distinct, used
    return status
