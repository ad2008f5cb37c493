"""GPT-2's split pattern on 64 ASCII bytes at once: all cuts between them from a few words of bits.

Bit i stands for byte i. Cutting text pre-token by pre-token costs a wrongly predicted branch or two
at each; here there is one now and then for the whole window.
"""

from typing import Any

import numpy as np

from lmray.tokenizer.kernels.compiled import helper, load8, trailing_zeros, within64

ONE, _TWO, _THREE = np.uint64(1), np.uint64(2), np.uint64(3)
NONE = np.uint64(0)
_CASE = 0x20


@helper
def certain_ends(data: Any, start: int, stop: int) -> Any:
    """Where pre-tokens end in the 64 bytes from `start`, where one starts, in a text to `stop`.

    Bit i set: one ends before byte i, and the next starts there. Ends that more text, or other than
    ASCII, has a say in are left out; so there may be none.
    """
    if start + 64 > data.size or load8(data, start) >= 0x80:
        return NONE
    # Three bytes after an end decide whether it is one, as in "'ll" and white space before a word.
    wide = within64(data, start, 0, 0x80, 0x80)
    certain = min(trailing_zeros(wide), stop - start) - 2
    if certain <= 1:
        return NONE

    letter = within64(data, start, _CASE, ord("a"), 26)
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

    apostrophe = within64(data, start, 0, ord("'"), 1) & cuts
    short = within64(data, start, 0, ord("s"), 2) | within64(data, start, 0, ord("d"), 1)
    short |= within64(data, start, 0, ord("m"), 1)
    before_e = within64(data, start, 0, ord("r"), 1) | within64(data, start, 0, ord("v"), 1)
    ell = within64(data, start, 0, ord("l"), 1)
    long = ell >> ONE & ell >> _TWO
    long |= before_e >> ONE & within64(data, start, 0, ord("e"), 1) >> _TWO
    # No contraction is cut after its apostrophe; one is after its end, whatever follows.
    short = apostrophe & short >> ONE
    long &= apostrophe
    cuts = cuts & ~((short | long) << ONE) | short << _TWO | long << _THREE
    return cuts & ((ONE << np.uint64(certain)) - _TWO)
