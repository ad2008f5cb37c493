"""tiktoken's two arguments about special tokens, against tiktoken."""

from collections.abc import Collection
from functools import cache
from typing import Any, Literal

import pytest
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st

from lmray.errors import UsageError
from lmray.tokenizer import GPT2_PATTERN, Tokenizer, native
from tests.tokenizer.samples import small_tokenizer

A, B, C, WORD = "<|a|>", "|><|b", "b<|a|", "there"
OVERLAPPING = [A, B, C, WORD]
"""They share characters, but none begins another: there tiktoken's choice is by chance."""

Choice = Literal["all"] | Collection[str]

texts = st.lists(
    st.sampled_from([A, B, C, WORD, "<|", "|>", "b", "a|", " there", "gather ", "\n", "é"])
    | st.text(max_size=3),
    max_size=12,
).map("".join)
choices = st.just("all") | st.sets(st.sampled_from(OVERLAPPING))


@cache
def both() -> tuple[Tokenizer, tiktoken.Encoding]:
    trained = small_tokenizer()
    ordinary = {
        n: data for n, data in trained.vocab.items() if n not in trained.special_ids.values()
    }
    ours = Tokenizer(ordinary, trained.merges, OVERLAPPING)
    theirs = tiktoken.Encoding(
        "overlapping",
        pat_str=GPT2_PATTERN,
        mergeable_ranks={data: n for n, data in ordinary.items()},
        special_tokens=ours.special_ids,
    )
    return ours, theirs


def outcome(encode: Any, text: str, **arguments: Choice) -> Any:
    try:
        return list(encode(text, **arguments))
    except ValueError:
        return "refused"


@pytest.mark.parametrize("worth", [0, 1 << 62], ids=["kernels", "regex"])
@given(text=texts, allowed=choices, disallowed=choices)
@example(text=A + B + C + WORD, allowed=set(), disallowed=set())
@example(text="<|a|><|b", allowed={B}, disallowed={A})
@example(text="<|a|><|b", allowed={A}, disallowed="all")
def test_every_combination_is_as_in_tiktoken(
    worth: int, text: str, allowed: Choice, disallowed: Choice
) -> None:
    ours, theirs = both()
    arguments = {"allowed_special": allowed, "disallowed_special": disallowed}
    expected = outcome(theirs.encode, text, **arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "worth_it", lambda _pattern, _bytes: worth == 0)
        assert outcome(ours.encode, text, **arguments) == expected
        assert outcome(ours.encode_to_numpy, text, **arguments) == expected
        assert outcome(ours.encode_to_numpy, text.encode(), **arguments) == expected
        assert outcome(ours.encode_iterable, text, **arguments) == expected
        batch = outcome(
            lambda text, **given: ours.encode_batch([text], **given)[0], text, **arguments
        )
        assert batch == expected
        assert ours.encode_ordinary(text) == theirs.encode_ordinary(text)


def _first_of_batch(text: str, **arguments: Any) -> Any:
    return both()[0].encode_batch([text, ""], **arguments)[0]


def test_by_default_all_special_tokens_are_ids_and_none_is_refused() -> None:
    ours, _theirs = both()
    assert ours.encode(A) == [ours.special_ids[A]]
    assert ours.encode(WORD) == [ours.special_ids[WORD]]


def test_a_refusal_says_which_where_and_what_to_do() -> None:
    ours, _theirs = both()
    with pytest.raises(UsageError, match=r"the text holds the special token '<\|a\|>' at c.* 4,"):
        ours.encode(f"é é {A}", allowed_special={B}, disallowed_special="all")
    with pytest.raises(UsageError, match=r"byte 6, .*pass allowed_special=\{'<\|a\|>'\}"):
        ours.encode_to_numpy(f"é é {A}".encode(), disallowed_special=[A])
    with pytest.raises(UsageError, match="text 1 of the batch holds"):
        ours.encode_batch(["fine", A], disallowed_special=[A])
    with pytest.raises(UsageError, match="character 10,004,"):
        list(ours.encode_iterable(["é" * 10_000, "abcd<|", "a|>"], disallowed_special=[A]))


def test_choices_that_cannot_be_meant_are_refused() -> None:
    ours, _theirs = both()
    with pytest.raises(UsageError, match=r"allowed_special='<\|a\|>' is one text"):
        ours.encode("", allowed_special=A)
    with pytest.raises(UsageError, match=r"disallowed_special names '<\|c\|>', which is no"):
        ours.encode("", disallowed_special=[A, "<|c|>"])


def test_of_tokens_that_begin_alike_the_longest_allowed_one_is_taken() -> None:
    tokenizer = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [], ["<a>", "<a><a>"])
    assert tokenizer.encode("<a><a><a>") == [257, 256]
    assert tokenizer.encode("<a><a>", allowed_special={"<a>"}) == [256, 256]
    assert tokenizer.encode("<a><a>x<a>", allowed_special={"<a><a>"}) == [257, 120, 60, 97, 62]
