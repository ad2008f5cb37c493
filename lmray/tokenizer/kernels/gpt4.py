r"""GPT-4's split pattern by hand, on UTF-8 bytes.

'(?i:[sdmt]|ll|ve|re)|  [^\r\n\p{L}\p{N}]?\p{L}+|  \p{N}{1,3}|  ?[^\s\p{L}\p{N}]+[\r\n]*|
\s+$|  \s*[\r\n]+|  \s+(?!\S)|  \s+

Its rules beside the classes: how many numbers go together at most, and whether there is \s+$, which
keeps white space whole where the text ends with it.
"""

from typing import Any

import numpy as np
from numba import types

from lmray.native.compiled import helper
from lmray.tokenizer.classes import LETTER, NUMBER, OTHER, SPACE
from lmray.tokenizer.kernels import scan
from lmray.tokenizer.kernels.characters import character, run_end, word_end
from lmray.tokenizer.kernels.compiled import by_rules, compile_for, load8, trailing_zeros, within64
from lmray.tokenizer.kernels.count import count, count_signature
from lmray.tokenizer.kernels.encode import encode, encode_signature
from lmray.tokenizer.kernels.window import ANY_CASE, NONE, ONE, THREE, TWO, contractions

_RULES = types.Tuple((types.int64, types.boolean))

_BLANK, _APOSTROPHE, _RETURN, _NEWLINE = map(ord, " '\r\n")
_S, _D, _M, _T, _L, _V, _E, _R = map(ord, "sdmtlver")
_LONG_S = "\u017f".encode()
_LONG_S_FIRST, _LONG_S_SECOND = _LONG_S


@by_rules(scan.certain_ends, _RULES)
def _certain_ends(data: Any, start: int, stop: int, classes: Any, rules: Any) -> Any:
    """See `scan`; only ends among ASCII are found, and those in white space only if all of it is.

    A gap is a run of white space other than line ends.
    """
    most_numbers, _whole = rules
    wide = within64(data, start, 0, 0x80, 0x80)
    limit = np.uint64(min(trailing_zeros(wide), stop - start, 63))
    known = (ONE << limit) - ONE

    letter = within64(data, start, ANY_CASE, ord("a"), 26)
    number = within64(data, start, 0, ord("0"), 10)
    blank = within64(data, start, 0, _BLANK, 1)
    space = blank | within64(data, start, 0, ord("\t"), 5)
    line_end = within64(data, start, 0, _NEWLINE, 1) | within64(data, start, 0, _RETURN, 1)
    other = ~(letter | number | space)

    # Adding a bit at its first place takes a run away and leaves a bit after it. Line ends right
    # after symbols are theirs.
    space &= ~line_end | line_end + (line_end & other << ONE)
    gap = space & ~line_end & known
    # White space that goes on beyond what is known is not known to be the last of a line.
    line_end = line_end & space | ONE << limit
    indent = _unless_line_ends(gap & line_end << ONE, gap, line_end)
    # The last of a gap stands alone or with what follows, if that is not the line's end.
    cuts = space & ~(space << ONE) | indent | gap & ~((gap | line_end) >> ONE)

    symbol = other & ~((other | blank) << ONE)
    cuts |= symbol
    # What stands before a letter goes with it, but a symbol that goes with what is before.
    cuts |= letter & ~((letter | gap | symbol) << ONE)
    cuts |= _number_cuts(number, most_numbers)
    short, long = contractions(data, start, symbol, ANY_CASE)
    cuts |= short << TWO | long << THREE
    return cuts & known & ~ONE


@helper
def _unless_line_ends(starts: Any, gap: Any, line_end: Any) -> Any:
    """Those `starts` of gaps that no line end follows."""
    wrong = (gap + starts) & line_end
    # Rarely: lines with nothing but blanks, or the window ends in a gap.
    while wrong != NONE:
        wrong = wrong >> ONE & gap
        starts &= ~wrong
    return starts


@helper
def _number_cuts(number: Any, most: int) -> Any:
    """Where numbers start that go together, up to `most` of them."""
    cuts = more = number & ~(number << ONE)
    for _ in range(1, most):
        number &= number << ONE
    while more != NONE:
        more = more << np.uint64(most) & number
        cuts |= more
    return cuts


@by_rules(scan.pretoken_end, _RULES)
def _pretoken_end(data: Any, start: int, stop: int, classes: Any, rules: Any) -> int:
    """See `scan`."""
    most_numbers, whole = rules
    first = load8(data, start)
    if first == _APOSTROPHE:
        length = _contraction_length(data, start, stop)
        if length > 0:
            return start + length
    kind, place = character(data, start, stop, classes)
    if kind == LETTER:
        return word_end(data, place, stop, classes)
    if kind == NUMBER:
        return _numbers_end(data, place, stop, classes, most_numbers)
    if place < stop and first != _NEWLINE and first != _RETURN:
        following, after = character(data, place, stop, classes)
        if following == LETTER:
            return word_end(data, after, stop, classes)
        if following == OTHER and first == _BLANK:
            kind, place = OTHER, after
    if kind == OTHER:
        place = run_end(data, place, stop, classes, OTHER)
        while place < stop and _ends_line(data, place):
            place += 1
        return place
    return _space_end(data, start, stop, classes, whole)


@helper
def _contraction_length(data: Any, start: int, stop: int) -> int:
    """Length of the contraction that starts with the apostrophe at `start`, or 0.

    The long s is an s to those who ignore case.
    """
    if start + 1 >= stop:
        return 0
    one = load8(data, start + 1) | ANY_CASE
    if one == _S or one == _D or one == _M or one == _T:
        return 2
    if start + 2 >= stop:
        return 0
    two = load8(data, start + 2)
    if load8(data, start + 1) == _LONG_S_FIRST and two == _LONG_S_SECOND:
        return 3
    two |= ANY_CASE
    if (one == _L and two == _L) or (two == _E and (one == _V or one == _R)):
        return 3
    return 0


@helper
def _numbers_end(data: Any, place: int, stop: int, classes: Any, most: int) -> int:
    """Where numbers end that go together, up to `most` of them, after the first."""
    for _ in range(1, most):
        if place >= stop:
            break
        kind, after = character(data, place, stop, classes)
        if kind != NUMBER:
            break
        place = after
    return place


@helper
def _space_end(data: Any, start: int, stop: int, classes: Any, whole: bool) -> int:
    """Where white space ends: after its last line end, or before its last character, or all of it.

    The last if it is a single one, or if the text ends with it.
    """
    place = last = line = start
    while place < stop:
        kind, after = character(data, place, stop, classes)
        if kind != SPACE:
            break
        if _ends_line(data, place):
            line = after
        place, last = after, place
    if line > start and not (whole and place == stop):
        return line
    return place if place == stop or last == start else last


@helper
def _ends_line(data: Any, place: int) -> bool:
    byte = load8(data, place)
    return byte == _NEWLINE or byte == _RETURN


compile_for(count, count_signature(_RULES))
compile_for(encode, encode_signature(_RULES))
