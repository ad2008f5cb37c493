"""Encoding a text: each pre-token's ids from a bounded cache, or by merging."""

from typing import Any

import numpy as np
from numba import types

from lmray.native.compiled import helper
from lmray.tokenizer.kernels.compiled import BYTES, generic, load_word, trailing_zeros
from lmray.tokenizer.kernels.pairs import PAIRS, RANKS, merge_long, merge_short
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

LONGEST = 64
"""Bytes of the longest pre-token that is kept, and that is merged by scanning all its pairs."""

OUT_FULL, NO_SUCH_BYTE = 2, 3
"""What `encode` returns where `out` has no room, and at a byte that is no token."""

CUT, PLACE, MADE, END, CACHED, ARENA_USED, IDS_USED = range(7)
"""Places in the state: special tokens passed, bytes read, ids made by this call, the end of the
pre-token that holds a byte that is no token; pre-tokens kept, and how much of the arenas they fill.
"""

_ID_BITS = np.uint64(28)
_ID = np.uint64((1 << 28) - 1)
_COUNT_BITS = np.uint64(56)
_AT = np.uint64((1 << 56) - 1)
_INLINE = 2
_ROOM = 2 * 64
"""Ids that a window of pre-tokens makes at most, if they are simply looked up."""


@helper
def _emit(value: Any, out: Any, made: int, kept_ids: Any) -> Any:
    """Appends the ids of a slot's value and returns how many."""
    size = np.int64(value >> _COUNT_BITS)
    if size <= _INLINE:
        # Both are written, whether there are two or not: a store is cheaper than a branch.
        out[made] = value & _ID
        out[made + 1] = value >> _ID_BITS & _ID
    else:
        at = np.int64(value & _AT)
        for place in range(size):
            out[made + place] = kept_ids[at + place]
    return size


@helper
def _emit_known(
    data: Any, place: int, window: int, bits: Any, slots: Any, out: Any, made: Any
) -> tuple[int, int, Any]:
    """Appends the ids of pre-tokens of a window up to the first that is not simply looked up.

    Returns where that starts, how many ids there are, and the bits that are left.
    """
    while bits != NONE:
        end = window + trailing_zeros(bits)
        length = end - place
        if length > SHORT or place + SHORT > data.size:
            break
        slot = find_short(slots, data, place, length)
        if slot < 0:
            break
        value = load_word(slots, slot + 3)
        size = np.int64(value >> _COUNT_BITS)
        if size > _INLINE:
            break
        out[made] = value & _ID
        out[made + 1] = value >> _ID_BITS & _ID
        made += size
        place = end
        bits &= bits - ONE
    return place, made, bits


@helper
def _spell(data: Any, start: int, byte_ids: Any, byte_ranks: Any, ids: Any, ranks: Any) -> bool:
    """Fills `ids` and `ranks` with those of single bytes; False if one is no token."""
    byte = np.int64(data[start])
    for place in range(ids.size):
        ids[place] = byte_ids[byte]
        if ids[place] < 0:
            return False
        if place + 1 < ids.size:
            following = np.int64(data[start + place + 1])
            ranks[place] = byte_ranks[byte << 8 | following]
            byte = following
    return True


@helper
def _make_room(
    state: Any,
    slots: Any,
    arena: Any,
    kept_ids: Any,
    slot: int,
    length: int,
    size: int,
    most: int,
    key: Any,
) -> int:
    """Forgets everything if a further pre-token has no room, and returns its slot."""
    if (
        state[CACHED] < most
        and state[ARENA_USED] + length <= arena.size
        and state[IDS_USED] + size <= kept_ids.size
    ):
        return slot
    # Frequent pre-tokens are back within a page of text.
    slots[:] = np.uint64(0)
    state[CACHED] = state[ARENA_USED] = state[IDS_USED] = 0
    return find(slots, arena, arena, 0, 0, key)


@helper
def _kept(state: Any, ids: Any, size: int, kept_ids: Any) -> Any:
    """The value that stands for ids[:size]."""
    if size <= _INLINE:
        more = np.uint64(ids[1]) << _ID_BITS if size == _INLINE else np.uint64(0)
        return np.uint64(size) << _COUNT_BITS | more | np.uint64(ids[0])
    at = state[IDS_USED]
    for place in range(size):
        kept_ids[at + place] = ids[place]
    state[IDS_USED] = at + size
    return np.uint64(size) << _COUNT_BITS | np.uint64(at)


@helper
def _keep(
    state: Any,
    slots: Any,
    arena: Any,
    slot: int,
    data: Any,
    place: int,
    length: int,
    key: Any,
    value: Any,
) -> None:
    """Puts a pre-token and its value into its free slot; the key alone holds a short one."""
    at = state[ARENA_USED]
    take(slots, ~slot, key, at, value)
    state[CACHED] += 1
    if length > SHORT:
        for byte in range(length):
            arena[at + byte] = data[place + byte]
        state[ARENA_USED] = at + length


@generic
def encode(
    data: Any,
    cuts: Any,
    last: int,
    most: int,
    out: Any,
    state: Any,
    slots: Any,
    arena: Any,
    kept_ids: Any,
    byte_ids: Any,
    pairs: Any,
    byte_ranks: Any,
    merged: Any,
    classes: Any,
    rules: Any,
) -> int:
    """Fills `out` with state[MADE] ids of a text, from where `state` says on.

    A row of `cuts` is the start, end and id of a special token; the last row stands for the end of
    the text. Pre-tokens after the last special token that end beyond `last` are left, as what
    follows might change them: state[PLACE] says where they start. A slot's value is the ids of a
    pre-token, or where in `kept_ids` more than two of them are. At most half of the slots are
    taken; with `most` pre-tokens or a full arena, all is forgotten.
    """
    scratch = np.empty(LONGEST, dtype=np.int32)
    place, made, status = state[PLACE], 0, DONE
    while status == DONE:
        stop = cuts[state[CUT], 0]
        settled = last if state[CUT] == len(cuts) - 1 else stop
        window, bits = place, NONE
        while place < stop:
            window, bits = fill(data, place, stop, classes, rules, window, bits)
            if bits != NONE and window + 64 <= settled and made + _ROOM <= out.size:
                place, made, bits = _emit_known(data, place, window, bits, slots, out, made)
                if bits == NONE:
                    continue
            end, bits = next_end(data, place, stop, classes, rules, window, bits)
            if end > settled:
                break
            length = end - place
            if made + length + _INLINE > out.size:
                status = OUT_FULL
                break
            key = key_of(data, place, length)
            slot = find(slots, arena, data, place, length, key)
            if slot >= 0:
                made += _emit(slots[slot + 3], out, made, kept_ids)
                place = end
                continue
            if 2 * WIDTH * (state[CACHED] + 1) > slots.size and state[CACHED] < most:
                status = TABLE_FULL
                break
            ids = out[made : made + length]
            ranks = scratch if length <= LONGEST else np.empty(length, dtype=np.int32)
            if not _spell(data, place, byte_ids, byte_ranks, ids, ranks):
                state[END] = end
                status = NO_SUCH_BYTE
                break
            if length <= LONGEST:
                size = merge_short(ids, ranks, length, pairs, merged)
                slot = _make_room(state, slots, arena, kept_ids, slot, length, size, most, key)
                value = _kept(state, ids, size, kept_ids)
                _keep(state, slots, arena, slot, data, place, length, key, value)
            else:
                size = merge_long(ids, ranks, length, pairs, merged)
            made += size
            place = end
        if status != DONE or state[CUT] == len(cuts) - 1:
            break
        if made == out.size:
            status = OUT_FULL
            break
        out[made] = cuts[state[CUT], 2]
        made += 1
        place = cuts[state[CUT], 1]
        state[CUT] += 1
    state[PLACE], state[MADE] = place, made
    return status


def encode_signature(rules: Any) -> Any:
    """The signature of `encode` for a pattern."""
    return types.int64(
        BYTES,
        CUTS,
        types.int64,
        types.int64,
        types.int32[::1],
        types.int64[::1],
        TABLE,
        types.uint8[::1],
        types.int32[::1],
        types.int32[::1],
        PAIRS,
        RANKS,
        types.int32[::1],
        BYTES,
        rules,
    )
