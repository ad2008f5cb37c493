import pytest

from lmray.tokenizer.kinds import is_mojibake, kind_of, readable


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (" the", "words, Latin"), ("'s", "words, Latin"), (" (x", "words, Latin"),
        ("\u0436", "words, Cyrillic"), (" \u6771\u4eac", "words, Han"),
        ("\u0531", "words, other scripts"), (" 1999", "numbers"), (" \n", "white space"),
        (" !=", "symbols"), ("\U0001f642", "symbols"), ("\x00", "symbols"),
        (b"\xe6\x9d", "parts of characters"), (b"\x80", "parts of characters"),
    ],
)  # fmt: skip
def test_kinds(token: str | bytes, kind: str) -> None:
    assert kind_of(token.encode() if isinstance(token, str) else token) == kind


@pytest.mark.parametrize("misread", ["latin-1", "cp1252"])
@pytest.mark.parametrize(
    "text", ["caf\u00e9", "\u2019s", "\u201cno", "1 \u2013 2", "\u00a31", "\u00fc"]
)
def test_what_is_encoded_twice_is_seen_and_what_is_encoded_once_is_not(
    text: str, misread: str
) -> None:
    once = text.encode()
    assert not is_mojibake(once)
    twice = once.decode(misread).encode()
    assert is_mojibake(twice)
    assert is_mojibake(twice.decode("latin-1").encode())


@pytest.mark.parametrize("rounds", [1, 2, 16])
def test_what_is_left_after_several_rounds_is_seen(rounds: int) -> None:
    assert is_mojibake(bytes.fromhex("c383c382") * rounds)


@pytest.mark.parametrize(
    "text",
    [
        "na\u00efve",
        "\u00c2ge",
        "S\u00c3O",
        "5 \u20ac",
        "\u00abc\u00f4t\u00e9\u00bb",
        "\u2122",
        "\u6771",
    ],
)
def test_natural_text_is_not_taken_for_it(text: str) -> None:
    assert not is_mojibake(text.encode())
    assert not is_mojibake(text.encode()[1:])


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (b" the", "' the'"), (b"\n\t", "'\\n\\t'"), ("\u6771".encode(), "'\u6771'"),
        (b"\xe6\x9d", "e6 9d"), (b"-" * 32, "'-' x 32"), (b"---", "'---'"),
        (bytes.fromhex("c383c382") * 16, "c3 83 c3 82 x 16"), (b"", "''"),
    ],
)  # fmt: skip
def test_tokens_as_they_are_shown(token: bytes, shown: str) -> None:
    assert readable(token) == shown
