import copy
import pickle
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.errors import UsageError
from lmray.tokenizer import END_OF_TEXT, Tokenizer
from lmray.tokenizer.pieces import PieceIds
from tests.tokenizer.samples import (
    PAUSE,
    PAUSE_TWICE,
    SPECIALS,
    hard_bytes,
    hard_text,
    small_tokenizer,
)

BYTES = {byte: bytes([byte]) for byte in range(256)}


@given(hard_bytes)
def test_bytes_come_back(data: bytes) -> None:
    tokenizer = small_tokenizer()
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


@given(hard_text)
def test_text_comes_back_with_lone_surrogates_replaced(text: str) -> None:
    tokenizer = small_tokenizer()
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert tokenizer.decode(tokenizer.encode(text)) == expected


@given(hard_text)
def test_text_and_its_bytes_have_the_same_ids(text: str) -> None:
    tokenizer = small_tokenizer()
    text = text.encode("utf-8", "replace").decode()
    assert tokenizer.encode(text) == tokenizer.encode_bytes(text.encode())


def test_the_courseworks_example() -> None:
    tokens = [b" ", b"a", b"c", b"e", b"h", b"t", b"th", b" c", b" a", b"the", b" at"]
    merges = [(b"t", b"h"), (b" ", b"c"), (b" ", b"a"), (b"th", b"e"), (b" a", b"t")]
    tokenizer = Tokenizer(dict(enumerate(tokens)), merges)
    assert tokenizer.encode("the cat ate") == [9, 7, 1, 5, 10, 3]
    with pytest.raises(UsageError, match="byte b'z' of 'z' is not in the vocabulary"):
        tokenizer.encode("z")


def test_special_tokens_are_ids_of_their_own() -> None:
    tokenizer = small_tokenizer()
    ids = tokenizer.special_ids
    assert list(ids) == SPECIALS
    assert tokenizer.end_of_text == ids[END_OF_TEXT] == 357
    assert tokenizer.encode(PAUSE * 3) == [ids[PAUSE_TWICE], ids[PAUSE]]
    assert tokenizer.encode(f"there{END_OF_TEXT}there") == [
        *tokenizer.encode("there"), 357, *tokenizer.encode("there"),
    ]  # fmt: skip


def test_special_tokens_outside_the_vocabulary_are_appended() -> None:
    tokenizer = Tokenizer(BYTES, [], ["<a>", "<b>"])
    assert tokenizer.special_ids == {"<a>": 256, "<b>": 257}
    assert tokenizer.vocab_size == 258
    assert tokenizer.encode("x<b>") == [120, 257]
    assert len(BYTES) == 256


def test_a_tokenizer_without_end_of_text_says_so() -> None:
    with pytest.raises(UsageError, match=r"no special token '<\|endoftext\|>'"):
        _ = Tokenizer(BYTES, []).end_of_text


def test_decoding_replaces_invalid_utf8_and_refuses_unknown_ids() -> None:
    tokenizer = small_tokenizer()
    assert tokenizer.decode([0xE6, 0x61]) == "\ufffda"
    assert tokenizer.decode_bytes(np.array([0xE6, 0x61], dtype=np.uint16)) == b"\xe6a"
    for unknown in (360, -1):
        with pytest.raises(UsageError, match=f"token id {unknown} is not in"):
            tokenizer.decode([97, unknown])


def test_token_bytes_add_up_to_the_text() -> None:
    tokenizer = Tokenizer({**BYTES, 300: b"th"}, [(b"t", b"h")], [END_OF_TEXT])
    lengths = tokenizer.token_bytes()
    assert lengths.dtype == np.int32
    assert lengths.shape == (tokenizer.vocab_size,) == (302,)
    assert lengths[299] == 0
    data = "the thé<|endoftext|>".encode()
    assert lengths[tokenizer.encode_bytes(data)].sum() == len(data)


def test_the_fingerprint_knows_every_part() -> None:
    merges = [(b"t", b"h"), (b"h", b"e")]
    vocab = {**BYTES, 256: b"th", 257: b"he"}
    same = Tokenizer(dict(reversed(vocab.items())), merges, ["<a>"])
    tokenizers = [
        Tokenizer(vocab, merges, ["<a>"]),
        Tokenizer(vocab, merges[::-1], ["<a>"]),
        Tokenizer(vocab, merges, ["<b>"]),
        Tokenizer({**vocab, 258: b"<a>"}, merges),
        Tokenizer({**BYTES, 257: b"th", 256: b"he"}, merges, ["<a>"]),
        Tokenizer(vocab, merges, ["<a>"], pattern=r"\S+|\s+"),
    ]
    assert same.fingerprint == tokenizers[0].fingerprint
    assert len({tokenizer.fingerprint for tokenizer in tokenizers}) == len(tokenizers)


def test_parts_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(UsageError, match="merge 0, b't' \\+ b'h', needs b'th'"):
        Tokenizer(BYTES, [(b"t", b"h")])
    with pytest.raises(UsageError, match="ids 97 and 300 of the vocabulary are both b'a'"):
        Tokenizer({**BYTES, 300: b"a"}, [])


@given(hard_text, st.lists(st.integers(0, 200), max_size=12))
def test_streaming_equals_the_whole_for_any_chunks(text: str, cuts: list[int]) -> None:
    assert list(_stream_in_tiny_buffers(text, cuts)) == small_tokenizer().encode(text)


def _stream_in_tiny_buffers(text: str, cuts: list[int]) -> Iterator[int]:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[start:end] for start, end in pairwise(edges)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmray.tokenizer.pattern._BUFFER", 1)
        yield from small_tokenizer().encode_iterable(chunks)


@pytest.mark.parametrize(
    "text",
    [
        "a" + " " * 50 + "b", "they'll", "we're'", " '", "a\n\n\nb", f"  {END_OF_TEXT}  b",
        f"x<|endoftext{END_OF_TEXT}", PAUSE * 5, "there <|pau", "🙂\ud83d\ude42\ud83d",
    ],
)  # fmt: skip
def test_streaming_letter_by_letter(text: str) -> None:
    whole = small_tokenizer().encode(text)
    assert list(_stream_in_tiny_buffers(text, list(range(len(text))))) == whole
    assert list(small_tokenizer().encode_iterable(text)) == whole


def test_streaming_holds_little_text() -> None:
    consumed = 0

    def lines() -> Iterator[str]:
        nonlocal consumed
        for _ in range(10_000):
            consumed += 1
            yield "gather there and there\n"

    stream = small_tokenizer().encode_iterable(lines())
    next(stream)
    assert consumed < 1_000
    assert sum(1 for _ in stream) > 10_000
    assert consumed == 10_000


def test_a_very_long_piece_in_tiny_chunks_is_not_quadratic() -> None:
    ids = list(small_tokenizer().encode_iterable("e" for _ in range(200_000)))
    assert small_tokenizer().decode(ids) == "e" * 200_000


def test_the_cache_is_bounded_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(f"there{number} gather" for number in range(500))
    expected = small_tokenizer().encode(text)
    monkeypatch.setattr(PieceIds, "MOST", 7)
    tokenizer = copy.copy(small_tokenizer())
    assert tokenizer.encode(text) == expected
    assert len(tokenizer._encoder.piece_ids) <= 7


def test_it_travels_to_other_processes() -> None:
    tokenizer = small_tokenizer()
    other = pickle.loads(pickle.dumps(tokenizer))
    assert other.fingerprint == tokenizer.fingerprint
    assert other.encode("there <|pause|>") == tokenizer.encode("there <|pause|>")
