import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.errors import UsageError
from lmray.tokenizer import GPT2_PATTERN, Pretokenizer
from lmray.tokenizer.text import to_bytes, to_text
from tests.tokenizer.samples import PAUSE, PAUSE_TWICE, SPECIALS, hard_bytes

GAPPY = r"\p{L}+"


@given(hard_bytes, st.sampled_from([GPT2_PATTERN, GAPPY]))
def test_no_byte_is_dropped(data: bytes, pattern: str) -> None:
    pieces = Pretokenizer(pattern, SPECIALS).cut(to_text(data))
    assert b"".join(map(to_bytes, pieces)) == data
    assert all(pieces)


def test_gpt2_pattern_on_known_text() -> None:
    pieces = Pretokenizer(GPT2_PATTERN, []).cut("I'll go,  won't I? 3rd\n\n  x ")
    assert pieces == [
        "I", "'ll", " go", ",", " ", " won", "'t", " I", "?", " 3", "rd", "\n\n ", " x", " ",
    ]  # fmt: skip


def test_the_longest_special_token_wins_whatever_their_order() -> None:
    text = f"a{PAUSE_TWICE}{PAUSE}b"
    for specials in ([PAUSE, PAUSE_TWICE], [PAUSE_TWICE, PAUSE]):
        assert Pretokenizer(GPT2_PATTERN, specials).cut(text) == ["a", PAUSE_TWICE, PAUSE, "b"]


@pytest.mark.parametrize(
    ("pattern", "specials", "message"),
    [
        ("(", [], "not a regular expression"),
        ("(a)|b", [], "captures groups"),
        ("a*", [], "matches the empty text"),
        ("a", [""], "empty text"),
        ("a", ["<x>", "<x>"], "more than once"),
        ("a", ["\ud800"], "not valid Unicode"),
    ],
)
def test_what_cannot_work_is_refused(pattern: str, specials: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Pretokenizer(pattern, specials)
