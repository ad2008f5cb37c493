"""Cutting a long text where its tokens are the same as if it were whole, and putting them together.

No pre-token goes on from a letter to white space, nor does what it looks ahead for: so it is with
GPT-2's and GPT-4's patterns, to which this applies. Parts are therefore cut there, outside of
special tokens, and each is encoded as a text of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import regex

from lmray.tokenizer.text import to_bytes, to_text

Read = Callable[[int, int], bytes]
"""The bytes of a text from one place to another, fewer where the text ends."""

_WINDOW = 1 << 12
_LETTER_BEFORE_SPACE = regex.compile(r"\p{L}(?=\s)")


def parts(
    read: Read, size: int, special_tokens: Sequence[str], *, part_bytes: int
) -> Iterator[tuple[int, int]]:
    """Start and end of parts of `part_bytes` and a little more, one after the other.

    Only the neighbourhood of each cut is read. Text without a safe place is not cut.
    """
    tokens = [token.encode() for token in special_tokens]
    start = 0
    while start < size:
        end = _safe_place(read, start + part_bytes, size, tokens)
        yield start, end
        start = end


def _safe_place(read: Read, after: int, size: int, tokens: Sequence[bytes]) -> int:
    """The first safe place from `after` on, or `size`."""
    longest = max(map(len, tokens), default=0)
    window = _WINDOW
    while after < size:
        # A letter has up to four bytes and a special token may reach in from either side.
        begin = max(0, after - max(4, longest))
        near = read(begin, after + window + longest)
        text, place, passed = to_text(near), 0, 0
        for found in _LETTER_BEFORE_SPACE.finditer(text):
            place += len(to_bytes(text[passed : found.end()]))
            passed = found.end()
            inside = any(
                near.find(token, max(0, place - len(token) + 1), place + len(token) - 1) >= 0
                for token in tokens
            )
            if after <= begin + place <= after + window and not inside:
                return begin + place
        after += window
        window *= 2
    return size


def gather(encoded: Iterable[tuple[int, np.ndarray]], size: int, dtype: str) -> np.ndarray:
    """The ids of consecutive parts in one array, each with the place its part ends in the text.

    `size` is the text's. The array grows as ids come, which moves pages of memory and copies
    nothing, so hardly more is held than the ids.
    """
    ids = np.empty(0, dtype=dtype)
    used = 0
    for end, part in encoded:
        needed = used + len(part)
        if needed > len(ids):
            # What is left is most likely as dense as what has been.
            likely = needed * (size - end) // max(1, end)
            ids.resize(needed + likely + likely // 64, refcheck=False)
        ids[used:needed] = part
        used = needed
    ids.resize(used, refcheck=False)
    return ids
