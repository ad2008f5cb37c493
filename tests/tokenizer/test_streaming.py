"""Encoding chunk by chunk: what is given early is what the whole text gives."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lmray.tokenizer import GPT2_PATTERN, GPT4_PATTERN, NANOCHAT_PATTERN, Pretokenizer, native
from lmray.tokenizer.text import to_text, well_formed
from tests.tokenizer.samples import (
    SPECIALS,
    any_bytes,
    pairing_bytes,
    pairing_tokenizer,
    small_tokenizer,
)

each_pattern = pytest.mark.parametrize(
    "pattern", [GPT2_PATTERN, GPT4_PATTERN, NANOCHAT_PATTERN], ids=["gpt2", "gpt4", "nanochat"]
)
each_path = pytest.mark.parametrize("kernels", [False, True], ids=["regex", "kernels"])


def streamed(pattern: str, chunks: list[str], *, kernels: bool) -> list[int]:
    """Encoded with the smallest buffers, in one way or the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "worth_it", lambda _pattern, _bytes: kernels)
        patch.setattr("lmray.tokenizer.pattern._BUFFER", 1)
        return list(pairing_tokenizer(pattern).encode_iterable(chunks))


@each_path
@each_pattern
@given(data=any_bytes | pairing_bytes, cuts=st.lists(st.integers(0, 300), max_size=12))
@example(data=b"a \n", cuts=[2])
@example(data=b"a\n" + b" " * 60 + b"\n  b", cuts=[20, 50, 62, 63])
@example(data=b"aaaa<a>", cuts=[7])
@example(data=b"!\r\n\n\n 1234567890", cuts=[2, 3, 4, 8, 9, 10, 12])
@example(data="a\n\u3000\u2003\u00a0\u2028\u3000\u3000\u3000\u3000\n".encode(), cuts=[4, 8, 9])
def test_any_chunks_give_what_the_whole_gives(
    kernels: bool, pattern: str, data: bytes, cuts: list[int]
) -> None:
    text = to_text(data)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[start:end] for start, end in pairwise(edges)]
    expected = pairing_tokenizer(pattern)._encoder.encode_by_regex(well_formed(text))
    assert streamed(pattern, chunks, kernels=kernels) == expected
    assert streamed(pattern, list(text), kernels=kernels) == expected


@each_pattern
@given(data=any_bytes | pairing_bytes, length=st.integers(0, 200))
@example(data=b"a\n" + b" " * 20 + b"\n", length=20)
def test_what_is_settled_does_not_change(pattern: str, data: bytes, length: int) -> None:
    """The pieces cut early, and those of the rest, are those of the whole."""
    text = to_text(data)
    pretokenizer = Pretokenizer(pattern, SPECIALS)
    pieces, rest = pretokenizer.cut_settled(text[:length])
    assert pieces + pretokenizer.cut(rest + text[length:]) == pretokenizer.cut(text)


@each_path
@each_pattern
def test_little_is_held_back(kernels: bool, pattern: str) -> None:
    """Ids come as text does, but for white space that may go on."""
    met = 0

    def words() -> Iterator[str]:
        nonlocal met
        for _ in range(200):
            met += 1
            yield "gather there\n"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "worth_it", lambda _pattern, _bytes: kernels)
        patch.setattr("lmray.tokenizer.pattern._BUFFER", 1)
        next(small_tokenizer(pattern).encode_iterable(words()))
    assert met <= 4
