"""64 bytes of text at once as words of bits: bit i stands for byte i.

Cutting text pre-token by pre-token costs a wrongly predicted branch or two at each; from a few
words of bits come all cuts in the window, for one now and then.
"""

from typing import Any

import numpy as np

from lmray.native.compiled import helper
from lmray.tokenizer.kernels.compiled import within64

ONE, TWO, THREE = np.uint64(1), np.uint64(2), np.uint64(3)
NONE = np.uint64(0)

ANY_CASE = 0x20
"""The bit that makes an ASCII letter lower case."""


@helper
def contractions(data: Any, start: int, first: Any, case: int) -> tuple[Any, Any]:
    """At which apostrophes of those in `first` a contraction of one letter begins, or of two.

    `case` is the bit to ignore in letters.
    """
    apostrophe = within64(data, start, 0, ord("'"), 1) & first
    one = within64(data, start, case, ord("s"), 2) | within64(data, start, case, ord("d"), 1)
    one |= within64(data, start, case, ord("m"), 1)
    before_e = within64(data, start, case, ord("r"), 1) | within64(data, start, case, ord("v"), 1)
    ell = within64(data, start, case, ord("l"), 1)
    two = ell >> ONE & ell >> TWO
    two |= before_e >> ONE & within64(data, start, case, ord("e"), 1) >> TWO
    return apostrophe & one >> ONE, apostrophe & two
