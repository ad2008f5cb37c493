"""GPT-2's split pattern by hand, on UTF-8 bytes.

'(?:[sdmt]|ll|ve|re)|  ?\\p{L}+|  ?\\p{N}+|  ?[^\\s\\p{L}\\p{N}]+|  \\s+(?!\\S)|  \\s+
"""

from typing import Any

import numpy as np
from numba import types

from lmray.native.compiled import helper
from lmray.tokenizer.classes import LETTER, SPACE
from lmray.tokenizer.kernels import scan
from lmray.tokenizer.kernels.characters import character, run_end, word_end
from lmray.tokenizer.kernels.compiled import by_rules, compile_for, load8, trailing_zeros, within64
from lmray.tokenizer.kernels.count import count, count_signature
from lmray.tokenizer.kernels.encode import encode, encode_signature
from lmray.tokenizer.kernels.window import ANY_CASE, NONE, ONE, THREE, TWO, contractions

_RULES = types.Tuple(())

_BLANK, _APOSTROPHE = ord(" "), ord("'")
_S, _D, _M, _T, _L, _V, _E, _R = map(ord, "sdmtlver")


@by_rules(scan.certain_ends, _RULES)
def _certain_ends(data: Any, start: int, stop: int, classes: Any, rules: Any) -> Any:
    """See `scan`; ends that other than ASCII has a say in are left out."""
    # Three bytes after an end decide whether it is one, as in "'ll" and white space before a word.
    wide = within64(data, start, 0, 0x80, 0x80)
    certain = min(trailing_zeros(wide), stop - start) - 2
    if certain <= 1:
        return NONE

    letter = within64(data, start, ANY_CASE, ord("a"), 26)
    number = within64(data, start, 0, ord("0"), 10)
    blank = within64(data, start, 0, ord(" "), 1)
    space = blank | within64(data, start, 0, ord("\t"), 5)
    other = ~(letter | number | space)
    same = (
        letter & letter << ONE
        | number & number << ONE
        | space & space << ONE
        | other & other << ONE
    )
    # A blank goes with what follows it; the last white space before something stands alone.
    cuts = ~same & ~(blank << ONE & ~space) | space & ~space >> ONE
    # No contraction is cut after its apostrophe; one is after its end, whatever follows.
    short, long = contractions(data, start, cuts, 0)
    cuts = cuts & ~((short | long) << ONE) | short << TWO | long << THREE
    return cuts & ((ONE << np.uint64(certain)) - TWO)


@by_rules(scan.pretoken_end, _RULES)
def _pretoken_end(data: Any, start: int, stop: int, classes: Any, rules: Any) -> int:
    """See `scan`."""
    first = load8(data, start)
    if first == _APOSTROPHE:
        length = _contraction_length(data, start, stop)
        if length > 0:
            return start + length
    kind, place = character(data, start, stop, classes)
    if first == _BLANK and place < stop:
        # A blank goes with what follows it, unless that is white space.
        kind, after = character(data, place, stop, classes)
        if kind != SPACE:
            place = after
    if kind == SPACE:
        return _space_end(data, start, stop, classes)
    if kind == LETTER:
        return word_end(data, place, stop, classes)
    return run_end(data, place, stop, classes, kind)


@helper
def _contraction_length(data: Any, start: int, stop: int) -> int:
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
def _space_end(data: Any, start: int, stop: int, classes: Any) -> int:
    r"""Where white space ends: before its last character if something follows, as \s+(?!\S) has it.

    A single one before something ends after itself: there the last alternative \s+ applies.
    """
    place = last = start
    while place < stop:
        kind, after = character(data, place, stop, classes)
        if kind != SPACE:
            return place if last == start else last
        place, last = after, place
    return place


compile_for(count, count_signature(_RULES))
compile_for(encode, encode_signature(_RULES))
