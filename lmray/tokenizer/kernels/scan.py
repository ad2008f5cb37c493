"""Where pre-tokens end, whatever the pattern: one by one, or from 64 bytes at once.

The module of a pattern says what `certain_ends` and `pretoken_end` are for rules of its type:
numbers that tell variants of the pattern apart. Kernels are compiled for each such type by itself.
"""

from typing import Any

from numba import types

from lmray.native.compiled import helper
from lmray.tokenizer.kernels.compiled import load8, trailing_zeros
from lmray.tokenizer.kernels.window import NONE, ONE

CUTS = types.Array(types.int64, 2, "C")
"""The type of the special tokens' places in a text."""


def certain_ends(data: Any, start: int, stop: int, classes: Any, rules: Any) -> Any:
    """Ends of pre-tokens in the 64 bytes from `start`, where one starts, in a text to `stop`.

    Bit i set: one ends before byte i, and the next starts there, whatever follows. Any may be left
    out. The first byte is ASCII, and all 64 can be read.
    """
    raise NotImplementedError


def pretoken_end(data: Any, start: int, stop: int, classes: Any, rules: Any) -> int:
    """Where the pre-token ends that starts at `start` < `stop`, in a text that ends at `stop`."""
    raise NotImplementedError


@helper
def fill(
    data: Any, place: int, stop: int, classes: Any, rules: Any, window: int, bits: Any
) -> tuple[int, Any]:
    """The window and its bits, or new ones from `place` on where no bit is left."""
    if bits == NONE and place + 64 <= data.size and load8(data, place) < 0x80:
        return place, certain_ends(data, place, stop, classes, rules)
    return window, bits


@helper
def next_end(
    data: Any, place: int, stop: int, classes: Any, rules: Any, window: int, bits: Any
) -> tuple[int, Any]:
    """Where the pre-token ends that starts at `place`, and the bits for those after it."""
    if bits != NONE:
        return window + trailing_zeros(bits), bits & (bits - ONE)
    return pretoken_end(data, place, stop, classes, rules), bits
