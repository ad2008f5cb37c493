"""The class of every character, as split patterns tell them apart."""

from functools import cache

import numpy as np
import regex

OTHER, LETTER, NUMBER, SPACE = 0, 1, 2, 3
"""Classes; OTHER is what is neither letter nor number nor white space, lone surrogates included."""

_PATTERNS = {LETTER: r"\p{L}+", NUMBER: r"\p{N}+", SPACE: r"\s+"}
_CODE_POINTS = 0x110000


@cache
def character_classes() -> np.ndarray:
    """The class of each code point, uint8, taken from `regex` so that kernels agree with it.

    One search per class over a text of all characters: 30 ms, so it is not kept on disk, where it
    could outlive the `regex` it came from.
    """
    # Made from one buffer: a million chr() calls take five times as long as all the rest.
    every = np.arange(_CODE_POINTS, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    classes = np.full(_CODE_POINTS, OTHER, dtype=np.uint8)
    for kind, pattern in _PATTERNS.items():
        for run in regex.finditer(pattern, every):
            classes[run.start() : run.end()] = kind
    classes.flags.writeable = False
    return classes
