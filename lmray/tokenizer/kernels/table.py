"""An open-addressing table of pre-tokens, exact: equal hashes never make two pre-tokens one.

A slot is four words: two of key, a tag, and a value that is its user's. Up to 16 bytes, the key is
the pre-token itself with zeros after it; beyond, it is hash and length, and the bytes
in an arena are compared. The tag is 0 for a free slot; its low byte is the length of a short
pre-token or LONG, and the rest is where the pre-token's bytes lie in the arena.
"""

from typing import Any

import numpy as np
from numba import types

from lmray.native.compiled import helper, kernel
from lmray.tokenizer.kernels.compiled import load8, load64, load_word

WIDTH = 4
"""Words of a slot."""

SHORT = 16
"""Bytes that the key itself can hold."""

_LONG = np.uint64(255)
_TAG = np.uint64(255)
_TAG_BITS = np.uint64(8)
_ZERO = np.uint64(0)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)

# Odd multipliers without structure: fractions of the golden ratio and of pi.
_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX_TOO = np.uint64(0x243F6A8885A308D3)
_HALF = np.uint64(32)

DONE, TABLE_FULL = 0, 1
"""What kernels that fill a table return; one that is stopped goes on when it is called again."""

TABLE = types.uint64[::1]
"""The type of the slots."""


@helper
def key_of(data: Any, start: int, length: int) -> tuple[Any, Any, Any]:
    """The two words of key and the low byte of the tag."""
    if length > SHORT:
        return _hash(data, start, length), np.uint64(length), _LONG
    if start + SHORT > data.size:
        second = _word(data, start + 8, length - 8)
        return _word(data, start, min(length, 8)), second, np.uint64(length)
    first, second = _short_key(data, start, length)
    return first, second, np.uint64(length)


@helper
def _short_key(data: Any, start: int, length: int) -> tuple[Any, Any]:
    """The two words of up to SHORT bytes, where as many can be read."""
    # Masked instead of asked how long: lengths vary too much for a branch to be predicted.
    first = load64(data, start) & _ALL >> np.uint64(64 - 8 * min(length, 8))
    beyond = _ALL >> np.uint64(64 - 8 * max(length - 8, 1)) if length > 8 else _ZERO
    return first, load64(data, start + 8) & beyond


@helper
def find_short(slots: Any, data: Any, start: int, length: int) -> int:
    """`find` of up to SHORT bytes, where as many can be read, at the first place alone; else -1.

    Most pre-tokens are there, and without a loop the processor looks several up at a time.
    """
    first, second = _short_key(data, start, length)
    place = _home(first, second, slots.size - 1)
    if (
        load_word(slots, place) == first
        and load_word(slots, place + 1) == second
        and load_word(slots, place + 2) & _TAG == np.uint64(length)
    ):
        return place
    return -1


@helper
def find(
    slots: Any, arena: Any, data: Any, start: int, length: int, key: tuple[Any, Any, Any]
) -> int:
    """Where in `slots` the pre-token's slot begins, or ~place of the free slot it would take."""
    first, second, tag = key
    mask = slots.size - 1
    place = _home(first, second, mask)
    while True:
        found = slots[place + 2]
        if found == _ZERO:
            return ~place
        if slots[place] == first and slots[place + 1] == second and found & _TAG == tag:
            if tag != _LONG or _same(arena, np.int64(found >> _TAG_BITS), data, start, length):
                return place
        place = (place + WIDTH) & mask


@helper
def take(slots: Any, place: int, key: tuple[Any, Any, Any], at: int, value: Any) -> None:
    """Fills a free slot; `at` is where the bytes lie in the arena."""
    first, second, tag = key
    slots[place] = first
    slots[place + 1] = second
    slots[place + 2] = np.uint64(at) << _TAG_BITS | tag
    slots[place + 3] = value


@helper
def _home(first: Any, second: Any, mask: int) -> Any:
    """The place to look first: a multiple of WIDTH within `mask`."""
    mixed = (first ^ second * _MIX_TOO) * _MIX
    mixed ^= mixed >> _HALF
    mixed *= _MIX_TOO
    return np.int64(mixed >> _HALF) * WIDTH & mask


@helper
def _word(data: Any, start: int, length: int) -> Any:
    """Up to eight bytes as a word, zeros above them."""
    word = _ZERO
    for place in range(length):
        word |= np.uint64(load8(data, start + place)) << np.uint64(8 * place)
    return word


@helper
def _hash(data: Any, start: int, length: int) -> Any:
    """64 bits from all bytes of more than eight."""
    mixed = _MIX
    for place in range(start, start + length - 8, 8):
        mixed = (mixed ^ load64(data, place)) * _MIX_TOO
        mixed ^= mixed >> _HALF
    return (mixed ^ load64(data, start + length - 8)) * _MIX


@helper
def _same(arena: Any, at: int, data: Any, start: int, length: int) -> bool:
    """Whether `length` >= 8 bytes are equal."""
    for place in range(0, length - 8, 8):
        if load64(arena, at + place) != load64(data, start + place):
            return False
    return load64(arena, at + length - 8) == load64(data, start + length - 8)


@kernel(types.void(TABLE, TABLE))
def rehash(old: Any, new: Any) -> None:
    """Puts every slot of `old` into `new`, which is free and larger."""
    mask = new.size - 1
    for slot in range(0, old.size, WIDTH):
        if old[slot + 2] != _ZERO:
            place = _home(old[slot], old[slot + 1], mask)
            while new[place + 2] != _ZERO:
                place = (place + WIDTH) & mask
            for word in range(WIDTH):
                new[place + word] = old[slot + word]
