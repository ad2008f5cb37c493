from collections import Counter

import regex
from hypothesis import given
from hypothesis import strategies as st

from lmray.tokenizer import END_OF_TEXT, GPT2_PATTERN, count_pretokens
from tests.tokenizer.samples import hard_bytes


def test_special_tokens_are_not_counted() -> None:
    data = f"to be {END_OF_TEXT} to be{END_OF_TEXT}".encode()
    counts = count_pretokens(data, pattern=GPT2_PATTERN, special_tokens=[END_OF_TEXT])
    assert counts.as_counter() == {b"to": 1, b" be": 2, b" ": 1, b" to": 1}


@given(st.lists(st.text(alphabet="ab' \n1!é", max_size=30), max_size=5))
def test_equal_to_counting_each_document(documents: list[str]) -> None:
    expected = Counter(
        piece.encode() for text in documents for piece in regex.findall(GPT2_PATTERN, text)
    )
    data = END_OF_TEXT.join(documents).encode()
    counts = count_pretokens(data, pattern=GPT2_PATTERN, special_tokens=[END_OF_TEXT])
    assert counts.as_counter() == expected


@given(hard_bytes, hard_bytes)
def test_counts_of_parts_add_up(first: bytes, second: bytes) -> None:
    def count(data: bytes) -> Counter[bytes]:
        return count_pretokens(
            data, pattern=GPT2_PATTERN, special_tokens=[END_OF_TEXT]
        ).as_counter()

    first += END_OF_TEXT.encode()
    assert count(first) + count(second) == count(first + second)
    kept = (first + second).replace(END_OF_TEXT.encode(), b"")
    assert sum(len(piece) * n for piece, n in count(first + second).items()) == len(kept)
