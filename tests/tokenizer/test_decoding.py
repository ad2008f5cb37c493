from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lmray.errors import UsageError
from tests.tokenizer.samples import hard_bytes, hard_text, small_tokenizer

some_ids = st.lists(st.integers(0, 359) | st.sampled_from([0xF0, 0x9F, 0x99, 0x82, 0xED, 0xA0]))


@given(some_ids | hard_bytes.map(list) | hard_text.map(small_tokenizer().encode))
@example([0xE6, 0x61])
@example([0xF0, 0x9F, 0x99])
@example([0xED, 0xA0, 0x80, 0xC3])
def test_pieces_join_to_the_whole(ids: list[int]) -> None:
    pieces = list(small_tokenizer().decode_iterable(iter(ids)))
    assert "".join(pieces) == small_tokenizer().decode(ids)
    assert all(pieces)


def test_a_character_comes_with_its_last_byte_and_text_at_once() -> None:
    tokenizer = small_tokenizer()
    given: list[int] = []

    def ids() -> Iterator[int]:
        for token in [ord("a"), *"\U0001f642".encode(), ord("b")]:
            given.append(token)
            yield token

    stream = tokenizer.decode_iterable(ids())
    assert [(next(stream), len(given)) for _ in range(3)] == [("a", 1), ("\U0001f642", 5), ("b", 6)]
    assert list(stream) == []


def test_an_unknown_id_is_refused_when_it_comes() -> None:
    stream = small_tokenizer().decode_iterable([97, 360])
    assert next(stream) == "a"
    with pytest.raises(UsageError, match="token id 360 is not in"):
        next(stream)
