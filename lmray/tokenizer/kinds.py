"""What a token is, for a reader: its kind, its looks, and whether double encoding has left it."""

import regex

_SCRIPTS = (
    "Latin", "Cyrillic", "Greek", "Han", "Hiragana", "Katakana", "Hangul", "Arabic", "Hebrew",
    "Devanagari", "Thai",
)  # fmt: skip

_KINDS = [
    *((f"words, {name}", rf"\s?[^\s\p{{L}}\p{{N}}]?\p{{Script={name}}}.*") for name in _SCRIPTS),
    ("words, other scripts", r"\s?[^\s\p{L}\p{N}]?\p{L}.*"),
    ("numbers", r"\s?\p{N}.*"),
    ("white space", r"\s+"),
    ("symbols", r".*"),
]
_COMPILED = [(name, regex.compile(pattern, regex.DOTALL)) for name, pattern in _KINDS]

_REPEATED = regex.compile(rb"(.{1,8}?)\1{3,}", regex.DOTALL)

# A byte from 80 to BF, as Latin-1 and as Windows-1252 read it.
_CONTINUATION = "\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039"
_CONTINUATION += "\u0152\u017d\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a"
_CONTINUATION += "\u0153\u017e\u0178"
_MOJIBAKE = regex.compile(
    # C2 and C3, with which two bytes begin, before a continuation or, it being lost, each other;
    f"[\u00c2\u00c3][\u00c2\u00c3{_CONTINUATION}]"
    # E2 80, with which dashes and quotes begin; the letter and the rest are pre-tokens apart;
    f"|\u00e2[\u20ac\u0080]|\u20ac[{_CONTINUATION}]"
    # EF BF BD, the replacement character; F0 9F, with which most emoji begin.
    "|\u00ef\u00bf\u00bd|\u00f0[\u0178\u009f]"
)


def kind_of(token: bytes) -> str:
    """ "words, Latin", "numbers", "symbols", "white space", "parts of characters" ...

    Words and numbers may have a space or a sign before them. A single byte that is no character is
    such a part, too.
    """
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return "parts of characters"
    return next(name for name, pattern in _COMPILED if pattern.fullmatch(text))


def is_mojibake(token: bytes) -> bool:
    """Whether it holds traces of UTF-8 that was read as Latin-1 or Windows-1252 and encoded again.

    Such text has C3 83 C2 82 and worse where a letter was; runs of C3 83 C3 82 are what is left of
    it after several rounds, and become the longest tokens of vocabularies learnt from the web.
    """
    return _MOJIBAKE.search(token.decode("utf-8", "ignore")) is not None


def readable(token: bytes) -> str:
    """A token as text in quotes, or its bytes in hex; what is repeated is said but once."""
    repeated = _REPEATED.fullmatch(token)
    if repeated and len(repeated[1]) < len(token):
        return f"{readable(repeated[1])} x {len(token) // len(repeated[1])}"
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return token.hex(" ")
    if is_mojibake(token):
        return token.hex(" ")
    return repr(text)
