"""A kernel that yields what a scanner finds, for tests; `native` loads it, so that it is cached."""

from typing import Any

from lmray.tokenizer.kernels.compiled import generic
from lmray.tokenizer.kernels.scan import fill, next_end
from lmray.tokenizer.kernels.window import NONE


@generic
def scan(data: Any, classes: Any, rules: Any, ends: Any) -> int:
    """Fills `ends` with the end of each pre-token of a text and returns how many there are."""
    place, found = 0, 0
    window, bits = 0, NONE
    while place < data.size:
        window, bits = fill(data, place, data.size, classes, rules, window, bits)
        place, bits = next_end(data, place, data.size, classes, rules, window, bits)
        ends[found] = place
        found += 1
    return found
