"""The kernels against what they stand in for: counting by `regex`, merging in Python."""

import struct
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.tokenizer import GPT2_PATTERN, Pretokenizer, Tokenizer, native
from lmray.tokenizer.counting import NativeCounter
from lmray.tokenizer.encoder import MOST, Encoder, NoSuchByteError
from lmray.tokenizer.merging import MergeTable, merge
from lmray.tokenizer.specials import SpecialTokens
from lmray.tokenizer.text import to_text
from tests.tokenizer.samples import (
    SHORT,
    SPECIALS,
    any_bytes,
    hard_text,
    pairing_bytes,
    pairing_tokenizer,
    patterns,
    plain_bytes,
    small_documents,
    small_tokenizer,
)
from tests.tokenizer.scanning import counted_by_regex, scanned
from tests.tokenizer.test_merging import LETTERS, tables


@cache
def encoder(pattern: str = GPT2_PATTERN) -> Encoder:
    return small_tokenizer(pattern)._encoder.piece_ids.encoder(pattern, "uint16")


def encoded_by_regex(pattern: str, data: bytes) -> list[int]:
    return small_tokenizer(pattern)._encoder.encode_by_regex(to_text(data))


def fresh_encoder(pattern: str, *, most: int = MOST) -> Encoder:
    pieces = small_tokenizer(pattern)._encoder.piece_ids
    return Encoder(pieces._byte_ids, pieces._merges, pieces.special_ids, pattern=pattern, most=most)


@given(any_bytes | plain_bytes | small_documents.map(str.encode), patterns)
def test_counts_equal_those_by_regex(data: bytes, pattern: str) -> None:
    counter = NativeCounter(pattern, SPECIALS)
    counter.add(data)
    expected = counted_by_regex(data, Pretokenizer(pattern, SPECIALS))
    assert list(counter.counts().as_counter().items()) == list(expected.items())


@given(st.lists(any_bytes, max_size=4), patterns)
def test_counts_add_up_over_texts(texts: list[bytes], pattern: str) -> None:
    counter = NativeCounter(pattern, SPECIALS)
    expected: Counter[bytes] = Counter()
    for text in texts:
        counter.add(text)
        expected += counted_by_regex(text, Pretokenizer(pattern, SPECIALS))
    assert counter.counts().as_counter() == expected


@given(st.lists(any_bytes, max_size=4), patterns)
def test_counts_of_several_counters_add_up(texts: list[bytes], pattern: str) -> None:
    total = NativeCounter(pattern, [])
    expected: Counter[bytes] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NativeCounter, "_SLOTS", 2)
        patch.setattr(NativeCounter, "_ARENA", 1)
        small = NativeCounter(pattern, [])
    for text in texts:
        counter = NativeCounter(pattern, SPECIALS)
        counter.add(text)
        total.add_counts(counter.counts())
        small.add_counts(counter.counts())
        expected += counted_by_regex(text, Pretokenizer(pattern, SPECIALS))
    assert total.counts().as_counter() == small.counts().as_counter() == expected


@given(any_bytes | small_documents.map(str.encode), patterns)
def test_counting_grows_from_the_smallest_tables(data: bytes, pattern: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NativeCounter, "_SLOTS", 2)
        patch.setattr(NativeCounter, "_ARENA", 1)
        counter = NativeCounter(pattern, [])
    counter.add(data)
    assert counter.counts().as_counter() == counted_by_regex(data, Pretokenizer(pattern, []))


def colliding(count: int) -> list[bytes]:
    """Pre-tokens of 24 bytes with one 64-bit hash: the hash of table.py, undone."""
    multiply, word = 0x243F6A8885A308D3, 1 << 64
    undo = pow(multiply, -1, word)
    punctuation = b"!#$%&()*+,-./:;<=>?@[]^_{|}~"
    generator = np.random.default_rng(0)

    def step(mixed: int, eight: int) -> int:
        mixed = (mixed ^ eight) * multiply % word
        return mixed ^ mixed >> 32

    def after_two(head: bytes) -> int:
        mixed = step(0x9E3779B97F4A7C15, struct.unpack("<Q", head[:8])[0])
        return step(mixed, struct.unpack("<Q", head[8:])[0])

    wanted = 0x0123456789ABCDEF
    found = []
    while len(found) < count:
        first = bytes(generator.choice(list(punctuation), 8).tolist())
        # Solve for the second word that makes the state after it `wanted`, and keep it if that
        # word's bytes are no letters, numbers or spaces: then it all is one pre-token.
        mixed = step(0x9E3779B97F4A7C15, struct.unpack("<Q", first)[0])
        target = wanted ^ wanted >> 32
        second = struct.pack("<Q", target * undo % word ^ mixed)
        if all(byte >= 0xF5 or 0x80 <= byte < 0xC0 or byte in punctuation for byte in second):
            assert after_two(first + second) == wanted
            found.append(first + second + b"!?!?!?!?")
    return found


def test_equal_hashes_do_not_make_pretokens_one() -> None:
    pretokens = colliding(5)
    assert len(set(pretokens)) == 5
    text = b"\n".join([*pretokens, *pretokens[:2], pretokens[0][:-1] + b"!"])
    assert scanned(GPT2_PATTERN, text)[::2] == text.split(b"\n")
    counter = NativeCounter(GPT2_PATTERN, [])
    counter.add(text)
    assert counter.counts().as_counter() == counted_by_regex(text, Pretokenizer(GPT2_PATTERN, []))
    assert encoder().encode(text).tolist() == encoded_by_regex(GPT2_PATTERN, text)


def test_keys_that_differ_only_in_length_or_the_middle() -> None:
    """Zeros above a short word, and all that first and last eight bytes do not show."""
    pieces = [b"\0" * n for n in range(1, 30)]
    pieces += [b"." * n + b"!" + b"." * (20 - n) for n in range(21)]
    text = b"a".join(pieces) + b"a" + b"a".join(pieces)
    counter = NativeCounter(GPT2_PATTERN, [])
    counter.add(text)
    assert counter.counts().as_counter() == counted_by_regex(text, Pretokenizer(GPT2_PATTERN, []))


@given(any_bytes | plain_bytes | hard_text.map(lambda t: t.encode("utf-8", "replace")), patterns)
def test_encoder_gives_the_same_ids(data: bytes, pattern: str) -> None:
    expected = encoded_by_regex(pattern, data)
    assert encoder(pattern).encode(data).tolist() == expected
    assert encoder(pattern).encode(data).tolist() == expected  # now from the cache


@given(pairing_bytes, patterns)
def test_where_text_is_cut_shows_in_the_ids(data: bytes, pattern: str) -> None:
    tokenizer = pairing_tokenizer(pattern)
    data += b"  " + SHORT.encode() + b"a" * 64
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "WORTH_BYTES", 0)
        assert tokenizer.encode_bytes(data) == tokenizer._encoder.encode_by_regex(to_text(data))


@given(st.lists(any_bytes, max_size=5), st.integers(1, 5), patterns)
def test_a_tiny_cache_changes_nothing(texts: list[bytes], most: int, pattern: str) -> None:
    tiny = fresh_encoder(pattern, most=most)
    for text in texts:
        assert tiny.encode(text).tolist() == encoded_by_regex(pattern, text)
        assert np.count_nonzero(tiny._idle[0].slots[2::4]) <= most


@given(any_bytes | small_documents.map(str.encode), st.integers(1, 9), patterns)
def test_encoding_goes_on_where_it_had_no_room(data: bytes, out: int, pattern: str) -> None:
    """The smallest table, which grows, and room for a few ids at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmray.tokenizer.encoder._FIRST_WORDS", 8)
        patch.setattr("lmray.tokenizer.encoder._OUT", out)
        small = fresh_encoder(pattern)
    assert small.encode(data).tolist() == encoded_by_regex(pattern, data)


def test_the_cache_is_bounded() -> None:
    bounded = fresh_encoder(GPT2_PATTERN, most=64)
    text = " ".join(
        f"there{number} gather{number * 7}{'!' * (number % 70)}" for number in range(5_000)
    )
    expected = encoded_by_regex(GPT2_PATTERN, text.encode())
    expected = encoded_by_regex(GPT2_PATTERN, text.encode())
    for _ in range(2):
        assert bounded.encode(text.encode()).tolist() == expected
        assert len(bounded._idle[0].slots) == 4 * 128
        assert 0 < np.count_nonzero(bounded._idle[0].slots[2::4]) <= 64


@given(tables(), st.lists(st.integers(0, LETTERS - 1), min_size=1, max_size=200))
def test_merging_equals_merging_in_python(table: MergeTable, ids: list[int]) -> None:
    """Also for merges in an order that training never makes, on both sides of 64 ids."""
    text = bytes(ord("a") + token for token in ids)
    letters = {ord("a") + token: token for token in range(LETTERS)}
    found = Encoder(letters, table, {}, pattern=GPT2_PATTERN).encode(text)
    assert found.tolist() == merge(ids, table)


@given(
    st.lists(st.sampled_from(["<", "<a", "a>", "<a>", "<a><a>", "é", "b" * 60]), max_size=40),
    st.lists(st.sampled_from(["<a>", "<a><a>", "<", "a", "é", "\u0301"]), unique=True),
)
def test_special_tokens_are_found_as_by_regex(parts: list[str], specials: list[str]) -> None:
    text = "".join(parts)
    ids = {token: 300 + number for number, token in enumerate(specials)}
    pieces = Pretokenizer(GPT2_PATTERN, specials)._specials.split(text)
    expected, place = [], 0
    for number, piece in enumerate(pieces):
        start, place = place, place + len(piece.encode())
        if number % 2:
            expected.append([start, place, ids[piece]])
    assert SpecialTokens(ids).cuts(text.encode()).tolist() == [*expected, [place, place, -1]]


@given(any_bytes, patterns)
def test_numpy_gets_the_same_ids(data: bytes, pattern: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "WORTH_BYTES", 0)
        array = small_tokenizer(pattern).encode_to_numpy(data)
    assert array.dtype == np.uint16
    assert array.tolist() == encoded_by_regex(pattern, data)


def test_an_absent_byte_is_named_as_ever() -> None:
    tokens = [b" ", b"a", b"c", b"e", b"h", b"t", b"th"]
    tokenizer = Tokenizer(dict(enumerate(tokens)), [(b"t", b"h")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "WORTH_BYTES", 0)
        assert tokenizer.encode("the cat") == [6, 3, 0, 2, 1, 5]
        with pytest.raises(Exception, match="byte b'z' of ' czech' is not in the vocabulary"):
            tokenizer.encode("the cat czech")
    with pytest.raises(NoSuchByteError):
        tokenizer._encoder.piece_ids.encoder(GPT2_PATTERN, "uint16").encode(b"z")


def test_ids_beyond_uint16() -> None:
    vocab = {byte: bytes([byte]) for byte in range(256)} | {65_536: b"th"}
    tokenizer = Tokenizer(vocab, [(b"t", b"h")])
    for worth in (0, 1 << 62):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "WORTH_BYTES", worth)
            array = tokenizer.encode_to_numpy("that")
        assert array.dtype == np.uint32
        assert array.tolist() == [65_536, 97, 116]
