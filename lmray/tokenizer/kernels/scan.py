"""GPT-2's split pattern by hand, on UTF-8 bytes: where each pre-token ends.

'(?:[sdmt]|ll|ve|re)|  ?\\p{L}+|  ?\\p{N}+|  ?[^\\s\\p{L}\\p{N}]+|  \\s+(?!\\S)|  \\s+

A byte that is not part of valid UTF-8 is one character of class OTHER, like the lone surrogate that
`lmray.tokenizer.text` makes of it.
"""

from typing import Any

import numpy as np
from numba import types

from lmray.tokenizer.classes import LETTER, OTHER, SPACE
from lmray.tokenizer.kernels.compiled import (
    BYTES,
    helper,
    kernel,
    load8,
    load64,
    trailing_zeros,
)
from lmray.tokenizer.kernels.window import NONE, ONE, certain_ends

_BLANK, _APOSTROPHE = ord(" "), ord("'")
_S, _D, _M, _T, _L, _V, _E, _R = map(ord, "sdmtlver")

_LOW_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
_HIGH_BITS = np.uint64(0x8080808080808080)
_TO_LOWER = np.uint64(0x2020202020202020)
# What to add to a byte below 0x80 so that its high bit says: at least "a", and more than "z".
_FROM_A = np.uint64(0x1F1F1F1F1F1F1F1F)
_AFTER_Z = np.uint64(0x0505050505050505)


@helper
def pretoken_end(data: Any, start: int, stop: int, classes: Any) -> int:
    """Where the pre-token ends that starts at `start` < `stop`, in a text that ends at `stop`."""
    first = load8(data, start)
    if first == _APOSTROPHE:
        length = _contraction(data, start, stop)
        if length > 0:
            return start + length
    kind, place = _character(data, start, stop, classes)
    if first == _BLANK and place < stop:
        # A blank goes with what follows it, unless that is white space.
        kind, after = _character(data, place, stop, classes)
        if kind != SPACE:
            place = after
    if kind == SPACE:
        return _space_end(data, start, stop, classes)
    if kind == LETTER:
        return _word_end(data, place, stop, classes)
    return _run_end(data, place, stop, classes, kind)


@helper
def _contraction(data: Any, start: int, stop: int) -> int:
    """Length of the contraction that starts with the apostrophe at `start`, or 0."""
    if start + 1 >= stop:
        return 0
    one = load8(data, start + 1)
    if one == _S or one == _D or one == _M or one == _T:
        return 2
    if start + 2 >= stop:
        return 0
    two = load8(data, start + 2)
    if (one == _L and two == _L) or (two == _E and (one == _V or one == _R)):
        return 3
    return 0


@helper
def _word_end(data: Any, place: int, stop: int, classes: Any) -> int:
    """Where the run of letters ends that goes on at `place`."""
    while place < stop:
        if place + 8 <= data.size:
            # Eight bytes at a time: a loop over bytes mispredicts its end at almost every word.
            word = load64(data, place)
            lower = (word | _TO_LOWER) & _LOW_BITS
            letters = (lower + _FROM_A) & ~(lower + _AFTER_Z) & ~word & _HIGH_BITS
            place += trailing_zeros(letters ^ _HIGH_BITS) >> 3
            if letters == _HIGH_BITS:
                continue
            if place >= stop or load8(data, place) < 0x80:
                break
        kind, after = _character(data, place, stop, classes)
        if kind != LETTER:
            break
        place = after
    return min(place, stop)


@helper
def _run_end(data: Any, place: int, stop: int, classes: Any, kind: int) -> int:
    """Where the run of characters of one class ends that goes on at `place`."""
    while place < stop:
        found, after = _character(data, place, stop, classes)
        if found != kind:
            break
        place = after
    return place


@helper
def _space_end(data: Any, start: int, stop: int, classes: Any) -> int:
    r"""Where white space ends: before its last character if something follows, as \s+(?!\S) has it.

    A single one before something ends after itself: there the last alternative \s+ applies.
    """
    place = last = start
    while place < stop:
        kind, after = _character(data, place, stop, classes)
        if kind != SPACE:
            return place if last == start else last
        place, last = after, place
    return place


@helper
def _character(data: Any, place: int, stop: int, classes: Any) -> tuple[int, int]:
    """The class of the character at `place` < `stop`, and where it ends."""
    first = load8(data, place)
    if first < 0x80:
        return load8(classes, first), place + 1
    return _wide_character(data, place, stop, classes, first)


@helper
def _wide_character(data: Any, place: int, stop: int, classes: Any, first: int) -> tuple[int, int]:
    """`_character` for a `first` byte that is not ASCII; the same bytes are valid as in Python."""
    second = _continuation(data, place + 1, stop)
    if second < 0 or first < 0xC2 or first > 0xF4:
        return OTHER, place + 1
    if first < 0xE0:
        return load8(classes, (first & 0x1F) << 6 | second), place + 2
    third = _continuation(data, place + 2, stop)
    if third < 0:
        return OTHER, place + 1
    if first < 0xF0:
        point = (first & 0x0F) << 12 | second << 6 | third
        # Shorter forms exist below U+0800, and surrogates are not characters.
        if point < 0x800 or 0xD800 <= point < 0xE000:
            return OTHER, place + 1
        return load8(classes, point), place + 3
    fourth = _continuation(data, place + 3, stop)
    point = (first & 0x07) << 18 | second << 12 | third << 6 | fourth
    if fourth < 0 or point < 0x10000 or point > 0x10FFFF:
        return OTHER, place + 1
    return load8(classes, point), place + 4


@helper
def _continuation(data: Any, place: int, stop: int) -> int:
    """The six bits of a continuation byte; -1 for another byte or the end."""
    if place >= stop:
        return -1
    byte = load8(data, place)
    return byte & 0x3F if byte & 0xC0 == 0x80 else -1


@kernel(types.int64(BYTES, BYTES, types.int64[::1]))
def scan(data: Any, classes: Any, ends: Any) -> int:
    """Fills `ends` with the end of each pre-token of a text and returns how many there are."""
    place, found = 0, 0
    window, bits = 0, NONE
    while place < data.size:
        if bits == NONE:
            window, bits = place, certain_ends(data, place, data.size)
        if bits != NONE:
            place = window + trailing_zeros(bits)
            bits &= bits - ONE
        else:
            place = pretoken_end(data, place, data.size, classes)
        ends[found] = place
        found += 1
    return found
