"""Equality with tiktoken on the published GPT-2 vocabulary."""

from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from lmray.corpus import byte_ranges
from lmray.tokenizer import END_OF_TEXT, Tokenizer
from tests.tokenizer.samples import assigned, hard_text


@pytest.mark.parametrize("name", ["tinystories-valid.txt", "webtext-valid.txt"])
def test_real_text(
    data_dir: Path, gpt2: Tokenizer, gpt2_tiktoken: tiktoken.Encoding, name: str
) -> None:
    data = (data_dir / name).read_bytes()
    text = data.decode()
    expected = gpt2_tiktoken.encode(text, allowed_special="all")
    assert gpt2.encode(text) == expected
    assert gpt2.encode_bytes(data) == expected
    with (data_dir / name).open(newline="") as lines:
        assert list(gpt2.encode_iterable(lines)) == expected
    assert gpt2.decode(expected) == text


def test_ranges_encode_as_the_whole(data_dir: Path, gpt2: Tokenizer) -> None:
    path = data_dir / "webtext-valid.txt"
    ranges = byte_ranges(path, target_bytes=100_000)
    assert len(ranges) > 5
    parts = [token for part in ranges for token in gpt2.encode_bytes(part.read())]
    assert parts == gpt2.encode_bytes(path.read_bytes())


@given(text=hard_text | st.text())
def test_any_text(gpt2: Tokenizer, gpt2_tiktoken: tiktoken.Encoding, text: str) -> None:
    text = assigned(text)
    assert gpt2.encode(text) == gpt2_tiktoken.encode(text, allowed_special="all")


@pytest.mark.parametrize("unit", ["^", "x", " ", "ab", "\n", "0", "é"])
def test_long_repeats(gpt2: Tokenizer, gpt2_tiktoken: tiktoken.Encoding, unit: str) -> None:
    text = unit * 20_000
    assert gpt2.encode(text) == gpt2_tiktoken.encode(text)


def test_the_published_vocabulary(gpt2: Tokenizer) -> None:
    assert gpt2.vocab_size == 50_257
    assert len(gpt2.merges) == 50_000
    assert gpt2.special_ids == {END_OF_TEXT: 50_256}
    assert gpt2.encode("Hello world") == [15_496, 995]
