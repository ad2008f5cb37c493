"""The scanners of patterns against `regex`, and `regex` against tiktoken."""

import pytest
import regex
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st

from lmray.tokenizer import GPT2_PATTERN, GPT4_PATTERN, NANOCHAT_PATTERN, native
from lmray.tokenizer.classes import LETTER, NUMBER, OTHER, SPACE, character_classes
from tests.tokenizer.samples import any_bytes, assigned, hard_text, plain_bytes
from tests.tokenizer.scanning import cut, scanned

SPELLINGS = list(native._RULES)
each_pattern = pytest.mark.parametrize(
    "pattern", [GPT2_PATTERN, GPT4_PATTERN, NANOCHAT_PATTERN], ids=["gpt2", "gpt4", "nanochat"]
)


def test_classes_are_those_of_regex() -> None:
    classes = character_classes()
    names = {LETTER: r"\p{L}", NUMBER: r"\p{N}", SPACE: r"\s", OTHER: r"[^\s\p{L}\p{N}]"}
    points = [*range(0x500), *range(0x2000, 0x2100), 0x3000, *range(0xD7F0, 0xE010), 0x10FFFF]
    for point in points + list(range(0, 0x110000, 97)):
        assert regex.match(names[classes[point]], chr(point)), hex(point)


@each_pattern
@given(data=any_bytes, filler=st.sampled_from([b" ", b"a", b"\n", b"'", b"1"]))
@example(data="\u00a0".encode() * 2 + b"a  \xe3\x80\x80b", filler=b"a")
@example(data="é".encode()[:1] + b" " + "🙂".encode()[:3], filler=b"a")
@example(data="'\u017f".encode()[:2], filler=b"'")
def test_scanners_cut_like_regex(pattern: str, data: bytes, filler: bytes) -> None:
    assert scanned(pattern, data) == cut(pattern, data)
    longer = data + filler * 70
    assert scanned(pattern, longer) == cut(pattern, longer)


@given(plain_bytes, st.sampled_from(SPELLINGS), st.sampled_from([b"", b"a" * 64, b" \n"]))
def test_scanners_take_64_bytes_at_once(data: bytes, pattern: str, after: bytes) -> None:
    assert scanned(pattern, data + after) == cut(pattern, data + after)


@each_pattern
@pytest.mark.parametrize(
    "text",
    [
        "'ll'LL've'Re's'Smart'\u017fo'l", "!!a !a\t!a !\r\n\n  a", "1234567 12 1\u06634 ²Ⅷ𝟘",
        " \n \n  a", "a   \n\n\t b  1", "'\n'\r\na\n!\n!", "東京! 東\u3000京\u3000\u3000",
        "\ta\u00a0a",
    ],
)  # fmt: skip
@pytest.mark.parametrize("filler", ["a", " ", "\n", "1", "!", "é"])
def test_what_decides_at_every_place_of_a_window(pattern: str, text: str, filler: str) -> None:
    for place in range(40, 67):
        data = (filler * place + text + "a " * 64).encode()
        assert scanned(pattern, data) == cut(pattern, data)


@each_pattern
@pytest.mark.parametrize("head", [0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEF, 0xF0, 0xF4, 0xF5])
def test_scanners_know_what_is_utf8(pattern: str, head: int) -> None:
    """Every kind of second byte, with as many more as could follow, cut off and not."""
    for second in (0x20, 0x61, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0):
        for rest in (b"", b"\x80", b"\x80\x80", b"\xbf\xbf\x80", b"\x80a"):
            data = b" " + bytes([head, second]) + rest
            assert scanned(pattern, data) == cut(pattern, data)
            assert scanned(pattern, data + b" a") == cut(pattern, data + b" a")


@pytest.mark.parametrize("pattern", [GPT2_PATTERN, GPT4_PATTERN])
@pytest.mark.parametrize("frame", ["a{}", " {}", "'{}"])
def test_scanners_on_each_character(pattern: str, frame: str) -> None:
    """Every character that there is, between letters, between spaces, after apostrophes."""
    every = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    data = "".join(map(frame.format, every)).encode()
    assert scanned(pattern, data) == cut(pattern, data)


def test_only_the_long_s_is_an_s_to_those_who_ignore_case() -> None:
    """Neither the Kelvin sign nor any ligature is part of a contraction."""
    ignoring = regex.compile(r"'(?i:[sdmt]|ll|ve|re)")
    every = "".join(f"'{chr(point)}" for point in range(0x80, 0xD800))
    assert ignoring.findall(every) == ["'\u017f"]
    assert scanned(GPT4_PATTERN, "'\u017fa'\u212aa".encode()) == [
        "'\u017f".encode(),
        b"a",
        "'\u212aa".encode(),
    ]


@pytest.mark.parametrize("pattern", SPELLINGS)
@given(texts=st.lists(hard_text, min_size=1, max_size=5))
@example(texts=["a \n ", "a\n \n  ", "1234567", "'\u017f'S'S", " \r\n\r!\r\n\n "])
def test_regex_cuts_like_tiktoken(pattern: str, texts: list[str]) -> None:
    """With every part of a text as a token, tiktoken's tokens are its pre-tokens."""
    texts = [assigned(text.encode("utf-8", "replace").decode())[:40] for text in texts]
    parts = {bytes([byte]) for byte in range(256)}
    for text in texts:
        edges = range(len(text) + 1)
        parts |= {text[start:end].encode() for start in edges for end in edges[start + 1 :]}
    ranks = {part: rank for rank, part in enumerate(sorted(parts, key=lambda p: (len(p), p)))}
    encoding = tiktoken.Encoding("parts", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    for text in texts:
        ids = encoding.encode_ordinary(text)
        assert encoding.decode_tokens_bytes(ids) == cut(pattern, text.encode())


def test_spellings_mean_what_their_rules_say() -> None:
    """GPT-4's differ where a text ends with white space after a line's end, and in numbers."""
    meanings = {}
    for pattern in SPELLINGS:
        found = tuple(map(tuple, (scanned(pattern, b"1234\n "), scanned(pattern, b"\n a"))))
        meanings.setdefault(native._RULES[pattern], set()).add(found)
    assert all(len(found) == 1 for found in meanings.values())
    assert len(set.union(*meanings.values())) == len(meanings) == 5
    assert scanned(GPT4_PATTERN, b"1234\n ") == [b"123", b"4", b"\n "]
    assert scanned(NANOCHAT_PATTERN, b"1234\n ") == [b"12", b"34", b"\n", b" "]


@given(any_bytes, st.sampled_from(SPELLINGS))
def test_no_byte_is_lost_by_a_scanner(data: bytes, pattern: str) -> None:
    pieces = scanned(pattern, data)
    assert b"".join(pieces) == data
    assert all(pieces)
    # Nothing before a pre-token has a say in it.
    for start in range(0, len(pieces), 9):
        assert scanned(pattern, b"".join(pieces[start:])) == pieces[start:]
