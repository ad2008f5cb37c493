"""The kernels against what they stand in for: `regex`, merging in Python, tiktoken."""

import struct
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import regex
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st

from lmray.tokenizer import END_OF_TEXT, GPT2_PATTERN, Pretokenizer, Tokenizer, native
from lmray.tokenizer.classes import LETTER, NUMBER, OTHER, SPACE, character_classes
from lmray.tokenizer.counting import NativeCounter, RegexCounter
from lmray.tokenizer.encoder import Encoder, NoSuchByteError
from lmray.tokenizer.merging import MergeTable, merge
from lmray.tokenizer.specials import SpecialTokens
from lmray.tokenizer.text import to_bytes, to_text, well_formed
from tests.tokenizer.samples import SPECIALS, hard_bytes, hard_text, small_tokenizer
from tests.tokenizer.test_merging import LETTERS, tables

FILES = ["tinystories-train", "tinystories-valid", "webtext-train", "webtext-valid"]

runs = st.tuples(st.sampled_from("a'  \n\u00a0\u30009!é東\u0301"), st.integers(1, 80)).map(
    lambda run: run[0] * run[1]
)
"""One character many times, across the widths that kernels take at once."""

any_bytes = st.lists(
    hard_bytes | runs.map(str.encode) | st.text(max_size=5).map(str.encode), max_size=8
).map(b"".join)
"""Everything at once: invalid bytes, special tokens, white space, contractions, long runs."""

small_documents = st.lists(st.text("abs't1!é  \n", max_size=12), max_size=60).map(" ".join)
"""Many pre-tokens over few characters, some of them often."""


def counted_by_regex(data: bytes, pretokenizer: Pretokenizer) -> Counter[bytes]:
    counter = RegexCounter(pretokenizer)
    counter.add(data)
    return counter.counts().as_counter()


def scanned(data: bytes) -> list[bytes]:
    """The pre-tokens that the scanner finds; it takes 64 bytes at once where there are as many."""
    ends = np.empty(len(data), dtype=np.int64)
    text = np.frombuffer(data, dtype=np.uint8)
    found = native.kernels().scan(text, character_classes(), ends)
    return [data[start:end] for start, end in pairwise([0, *ends[:found].tolist()])]


def cut(data: bytes) -> list[bytes]:
    return [to_bytes(piece) for piece in Pretokenizer(GPT2_PATTERN, []).cut(to_text(data))]


def by_regex(text: str, tokenizer: Tokenizer | None = None) -> list[int]:
    return (tokenizer or small_tokenizer())._encoder.encode_by_regex(text)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return small_tokenizer()._encoder.piece_ids.encoder("uint16")


def test_classes_are_those_of_regex() -> None:
    classes = character_classes()
    names = {LETTER: r"\p{L}", NUMBER: r"\p{N}", SPACE: r"\s", OTHER: r"[^\s\p{L}\p{N}]"}
    points = [*range(0x500), *range(0x2000, 0x2100), 0x3000, *range(0xD7F0, 0xE010), 0x10FFFF]
    for point in points + list(range(0, 0x110000, 97)):
        assert regex.match(names[classes[point]], chr(point)), hex(point)


@given(any_bytes)
@example("\u00a0".encode() * 2 + b"a  \xe3\x80\x80b")
@example("é".encode()[:1] + b" " + "🙂".encode()[:3])
def test_scanner_cuts_like_regex(data: bytes) -> None:
    assert scanned(data) == cut(data)
    for filler in (b" ", b"a", b"\n", b"'"):
        longer = data + filler * 70
        assert scanned(longer) == cut(longer)


@pytest.mark.parametrize("head", [0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEF, 0xF0, 0xF4, 0xF5])
def test_scanner_knows_what_is_utf8(head: int) -> None:
    """Every kind of second byte, with as many more as could follow, cut off and not."""
    for second in (0x20, 0x61, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0):
        for rest in (b"", b"\x80", b"\x80\x80", b"\xbf\xbf\x80", b"\x80a"):
            data = b" " + bytes([head, second]) + rest
            assert scanned(data) == cut(data)
            assert scanned(data + b" a") == cut(data + b" a")


def test_scanner_on_each_character() -> None:
    """Every character that there is, between letters and between spaces."""
    every = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    for frame in ("a{}", " {}"):
        data = "".join(map(frame.format, every)).encode()
        assert scanned(data) == cut(data)


@given(any_bytes | small_documents.map(str.encode))
def test_counts_equal_those_by_regex(data: bytes) -> None:
    counter = NativeCounter(SPECIALS)
    counter.add(data)
    expected = counted_by_regex(data, Pretokenizer(GPT2_PATTERN, SPECIALS))
    assert list(counter.counts().as_counter().items()) == list(expected.items())


@given(st.lists(any_bytes, max_size=4))
def test_counts_add_up_over_texts(texts: list[bytes]) -> None:
    counter = NativeCounter(SPECIALS)
    expected: Counter[bytes] = Counter()
    for text in texts:
        counter.add(text)
        expected += counted_by_regex(text, Pretokenizer(GPT2_PATTERN, SPECIALS))
    assert counter.counts().as_counter() == expected


@given(st.lists(any_bytes, max_size=4))
def test_counts_of_several_counters_add_up(texts: list[bytes]) -> None:
    total = NativeCounter([])
    expected: Counter[bytes] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NativeCounter, "_SLOTS", 2)
        patch.setattr(NativeCounter, "_ARENA", 1)
        small = NativeCounter([])
    for text in texts:
        counter = NativeCounter(SPECIALS)
        counter.add(text)
        total.add_counts(counter.counts())
        small.add_counts(counter.counts())
        expected += counted_by_regex(text, Pretokenizer(GPT2_PATTERN, SPECIALS))
    assert total.counts().as_counter() == small.counts().as_counter() == expected


@given(any_bytes | small_documents.map(str.encode))
def test_counting_grows_from_the_smallest_tables(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NativeCounter, "_SLOTS", 2)
        patch.setattr(NativeCounter, "_ARENA", 1)
        counter = NativeCounter([])
    counter.add(data)
    assert counter.counts().as_counter() == counted_by_regex(data, Pretokenizer(GPT2_PATTERN, []))


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


def test_equal_hashes_do_not_make_pretokens_one(encoder: Encoder) -> None:
    pretokens = colliding(5)
    assert len(set(pretokens)) == 5
    text = b"\n".join([*pretokens, *pretokens[:2], pretokens[0][:-1] + b"!"])
    assert scanned(text)[::2] == text.split(b"\n")
    counter = NativeCounter([])
    counter.add(text)
    assert counter.counts().as_counter() == counted_by_regex(text, Pretokenizer(GPT2_PATTERN, []))
    assert encoder.encode(text).tolist() == by_regex(to_text(text))


def test_keys_that_differ_only_in_length_or_the_middle() -> None:
    """Zeros above a short word, and all that first and last eight bytes do not show."""
    pieces = [b"\0" * n for n in range(1, 30)]
    pieces += [b"." * n + b"!" + b"." * (20 - n) for n in range(21)]
    text = b"a".join(pieces) + b"a" + b"a".join(pieces)
    counter = NativeCounter([])
    counter.add(text)
    assert counter.counts().as_counter() == counted_by_regex(text, Pretokenizer(GPT2_PATTERN, []))


@given(any_bytes | hard_text.map(lambda text: text.encode("utf-8", "replace")))
def test_encoder_gives_the_same_ids(encoder: Encoder, data: bytes) -> None:
    expected = by_regex(to_text(data))
    assert encoder.encode(data).tolist() == expected
    assert encoder.encode(data).tolist() == expected  # now from the cache


@given(st.lists(any_bytes, max_size=5), st.integers(1, 5))
def test_a_tiny_cache_changes_nothing(texts: list[bytes], most: int) -> None:
    pieces = small_tokenizer()._encoder.piece_ids
    tiny = Encoder(pieces._byte_ids, pieces._merges, pieces.special_ids, most=most)
    for text in texts:
        assert tiny.encode(text).tolist() == by_regex(to_text(text))
        assert np.count_nonzero(tiny._idle[0].slots[2::4]) <= most


@given(any_bytes | small_documents.map(str.encode), st.integers(1, 9))
def test_encoding_goes_on_where_it_had_no_room(data: bytes, out: int) -> None:
    """The smallest table, which grows, and room for a few ids at a time."""
    pieces = small_tokenizer()._encoder.piece_ids
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmray.tokenizer.encoder._FIRST_WORDS", 8)
        patch.setattr("lmray.tokenizer.encoder._OUT", out)
        small = Encoder(pieces._byte_ids, pieces._merges, pieces.special_ids)
    assert small.encode(data).tolist() == by_regex(to_text(data))


def test_the_cache_is_bounded() -> None:
    pieces = small_tokenizer()._encoder.piece_ids
    bounded = Encoder(pieces._byte_ids, pieces._merges, pieces.special_ids, most=64)
    text = " ".join(
        f"there{number} gather{number * 7}{'!' * (number % 70)}" for number in range(5_000)
    )
    for _ in range(2):
        assert bounded.encode(text.encode()).tolist() == by_regex(text)
        assert len(bounded._idle[0].slots) == 4 * 128
        assert 0 < np.count_nonzero(bounded._idle[0].slots[2::4]) <= 64


@given(tables(), st.lists(st.integers(0, LETTERS - 1), min_size=1, max_size=200))
def test_merging_equals_merging_in_python(table: MergeTable, ids: list[int]) -> None:
    """Also for merges in an order that training never makes, on both sides of 64 ids."""
    text = bytes(ord("a") + token for token in ids)
    letters = {ord("a") + token: token for token in range(LETTERS)}
    assert Encoder(letters, table, {}).encode(text).tolist() == merge(ids, table)


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


@given(any_bytes)
def test_numpy_gets_the_same_ids(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "WORTH_BYTES", 0)
        array = small_tokenizer().encode_to_numpy(data)
    assert array.dtype == np.uint16
    assert array.tolist() == by_regex(to_text(data))


def test_an_absent_byte_is_named_as_ever() -> None:
    tokens = [b" ", b"a", b"c", b"e", b"h", b"t", b"th"]
    tokenizer = Tokenizer(dict(enumerate(tokens)), [(b"t", b"h")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "WORTH_BYTES", 0)
        assert tokenizer.encode("the cat") == [6, 3, 0, 2, 1, 5]
        with pytest.raises(Exception, match="byte b'z' of ' czech' is not in the vocabulary"):
            tokenizer.encode("the cat czech")
    with pytest.raises(NoSuchByteError):
        tokenizer._encoder.piece_ids.encoder("uint16").encode(b"z")


def test_ids_beyond_uint16() -> None:
    vocab = {byte: bytes([byte]) for byte in range(256)} | {65_536: b"th"}
    tokenizer = Tokenizer(vocab, [(b"t", b"h")])
    for worth in (0, 1 << 62):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "WORTH_BYTES", worth)
            array = tokenizer.encode_to_numpy("that")
        assert array.dtype == np.uint32
        assert array.tolist() == [65_536, 97, 116]


@given(any_bytes, st.lists(st.integers(0, 300), max_size=12))
def test_streaming_equals_the_whole(data: bytes, cuts: list[int]) -> None:
    text = to_text(data)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[start:end] for start, end in pairwise(edges)]
    expected = by_regex(well_formed(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "WORTH_BYTES", 0)
        patch.setattr("lmray.tokenizer.pattern._BUFFER", 1)
        assert list(small_tokenizer().encode_iterable(chunks)) == expected
        assert list(small_tokenizer().encode_iterable(text)) == expected


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "WORTH_BYTES", 0)


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("name", FILES)
def test_real_text_as_tiktoken(
    data_dir: Path, gpt2: Tokenizer, gpt2_tiktoken: tiktoken.Encoding, name: str
) -> None:
    data = (data_dir / f"{name}.txt").read_bytes()
    array = gpt2.encode_to_numpy(data)
    assert array.dtype == np.uint16
    assert array.tolist() == gpt2_tiktoken.encode(data.decode(), allowed_special="all")


@pytest.mark.parametrize("name", FILES)
def test_real_text_counts_as_by_regex(data_dir: Path, name: str) -> None:
    data = (data_dir / f"{name}.txt").read_bytes()
    counter = NativeCounter([END_OF_TEXT])
    counter.add(data)
    assert counter.counts().as_counter() == counted_by_regex(
        data, Pretokenizer(GPT2_PATTERN, [END_OF_TEXT])
    )


@pytest.mark.usefixtures("loaded")
@given(text=hard_text | st.text())
def test_any_text_as_tiktoken(gpt2: Tokenizer, gpt2_tiktoken: tiktoken.Encoding, text: str) -> None:
    assert gpt2.encode(text) == gpt2_tiktoken.encode(text, allowed_special="all")


@pytest.mark.parametrize("unit", ["a", " ", "ab", "\n", "0", "!", "é", "aab"])
def test_a_megabyte_of_one_pretoken(
    gpt2: Tokenizer, gpt2_tiktoken: tiktoken.Encoding, unit: str
) -> None:
    text = unit * (1_000_000 // len(unit.encode()))
    gpt2.encode("a" * native.WORTH_BYTES)
    begun = time.perf_counter()
    ids = gpt2.encode(text)
    assert time.perf_counter() - begun < 2
    # A megabyte of white space is more than tiktoken's regular expressions take.
    assert ids == (by_regex(text, gpt2) if text.isspace() else gpt2_tiktoken.encode(text))
