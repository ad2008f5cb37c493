"""Kernels on real text, by GPT-2's vocabulary: tiktoken's ids, and the counts of `regex`."""

import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from lmray.tokenizer import (
    END_OF_TEXT,
    GPT2_PATTERN,
    GPT4_PATTERN,
    NANOCHAT_PATTERN,
    Pretokenizer,
    Tokenizer,
    native,
)
from lmray.tokenizer.counting import NativeCounter
from tests.tokenizer.conftest import in_tiktoken
from tests.tokenizer.samples import assigned, hard_text, patterns, plain_bytes, small_tokenizer
from tests.tokenizer.scanning import counted_by_regex

VALID = ["tinystories-valid", "webtext-valid"]
FILES = ["tinystories-train", "webtext-train", *VALID]

Both = tuple[Tokenizer, tiktoken.Encoding]


@pytest.fixture(scope="module", params=["gpt2", "gpt4"])
def both(request: pytest.FixtureRequest) -> Both:
    """A tokenizer of GPT-2's vocabulary, and tiktoken's."""
    name = request.param
    return request.getfixturevalue(name), request.getfixturevalue(f"{name}_tiktoken")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "WORTH_BYTES", 0)


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("name", FILES)
def test_real_text_as_tiktoken(data_dir: Path, both: Both, name: str) -> None:
    data = (data_dir / f"{name}.txt").read_bytes()
    ours, theirs = both
    array = ours.encode_to_numpy(data)
    assert array.dtype == np.uint16
    assert array.tolist() == theirs.encode(data.decode(), allowed_special="all")


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        *((GPT2_PATTERN, name) for name in FILES),
        *((pattern, name) for pattern in (GPT4_PATTERN, NANOCHAT_PATTERN) for name in VALID),
    ],
)
def test_real_text_counts_as_by_regex(data_dir: Path, pattern: str, name: str) -> None:
    data = (data_dir / f"{name}.txt").read_bytes()
    counter = NativeCounter(pattern, [END_OF_TEXT])
    counter.add(data)
    assert counter.counts().as_counter() == counted_by_regex(
        data, Pretokenizer(pattern, [END_OF_TEXT])
    )


@pytest.mark.usefixtures("loaded")
@given(text=hard_text | st.text() | plain_bytes.map(bytes.decode))
def test_any_text_as_tiktoken(both: Both, text: str) -> None:
    ours, theirs = both
    text = assigned(text)
    assert ours.encode(text) == theirs.encode(text, allowed_special="all")


@cache
def trained(pattern: str) -> Both:
    """A small vocabulary trained with the pattern; tiktoken prefers no special token to another."""
    small = small_tokenizer(pattern)
    ours = Tokenizer(small.vocab, small.merges, [END_OF_TEXT], pattern=pattern)
    return ours, in_tiktoken(ours)


@given(hard_text | st.text() | plain_bytes.map(bytes.decode), patterns)
def test_a_trained_vocabulary_as_tiktoken(text: str, pattern: str) -> None:
    ours, theirs = trained(pattern)
    text = assigned(text)
    expected = theirs.encode(text, allowed_special="all")
    for kernels in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "worth_it", lambda _pattern, _bytes, kernels=kernels: kernels)
            assert ours.encode(text) == expected


@pytest.mark.parametrize("unit", ["a", " ", "ab", "\n", "0", "!", "é", "aab", " \n"])
def test_a_megabyte_of_one_kind(both: Both, unit: str) -> None:
    ours, theirs = both
    text = unit * (1_000_000 // len(unit.encode()))
    ours.encode("a" * native.WORTH_BYTES)
    begun = time.process_time()
    ids = ours.encode(text)
    assert time.process_time() - begun < 2
    # A megabyte of white space is more than tiktoken's regular expressions take.
    assert ids == (ours._encoder.encode_by_regex(text) if text.isspace() else theirs.encode(text))
