"""The characters of UTF-8 and their classes, and runs of one class.

A byte that is not part of valid UTF-8 is one character of class OTHER, like the lone surrogate that
`lmray.tokenizer.text` makes of it.
"""

from typing import Any

import numpy as np

from lmray.native.compiled import helper
from lmray.tokenizer.classes import LETTER, OTHER
from lmray.tokenizer.kernels.compiled import load8, load64, trailing_zeros

_LOW_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
_HIGH_BITS = np.uint64(0x8080808080808080)
_TO_LOWER = np.uint64(0x2020202020202020)
# What to add to a byte below 0x80 so that its high bit says: at least "a", and more than "z".
_FROM_A = np.uint64(0x1F1F1F1F1F1F1F1F)
_AFTER_Z = np.uint64(0x0505050505050505)


@helper
def character(data: Any, place: int, stop: int, classes: Any) -> tuple[int, int]:
    """The class of the character at `place` < `stop`, and where it ends."""
    first = load8(data, place)
    if first < 0x80:
        return load8(classes, first), place + 1
    return _wide_character(data, place, stop, classes, first)


@helper
def _wide_character(data: Any, place: int, stop: int, classes: Any, first: int) -> tuple[int, int]:
    """`character` for a `first` byte that is not ASCII; the same bytes are valid as in Python."""
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


@helper
def word_end(data: Any, place: int, stop: int, classes: Any) -> int:
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
        kind, after = character(data, place, stop, classes)
        if kind != LETTER:
            break
        place = after
    return min(place, stop)


@helper
def run_end(data: Any, place: int, stop: int, classes: Any, kind: int) -> int:
    """Where the run of characters of one class ends that goes on at `place`."""
    while place < stop:
        found, after = character(data, place, stop, classes)
        if found != kind:
            break
        place = after
    return place
