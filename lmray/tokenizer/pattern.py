"""Pre-tokenization: text is cut at special tokens, then by a split pattern; merges stay inside."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import regex

from lmray.errors import UsageError

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""GPT-2's split pattern: contractions; words, numbers, symbols, each with one space; spaces."""

GPT4_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
"""GPT-4's (cl100k_base), as tiktoken has it: contractions of any case; words with what is before;
up to three numbers; symbols with one space and the ends of their line; ends of lines; spaces.
"""

NANOCHAT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
"""nanochat's: GPT-4's, but up to two numbers, so that a small vocabulary is not spent on them."""

PATTERNS = {"gpt2": GPT2_PATTERN, "gpt4": GPT4_PATTERN, "nanochat": NANOCHAT_PATTERN}
"""Split patterns by the names that the command line knows."""

END_OF_TEXT = "<|endoftext|>"
"""The special token that follows every document."""

_MARGIN = 8
_BUFFER = 1 << 13

Taken = TypeVar("Taken")


class Pretokenizer:
    """Cuts text into pieces: special tokens, and the pre-tokens of the ordinary text between them.

    A special token is never part of ordinary text, so a piece that reads like one is one.
    """

    def __init__(self, pattern: str, special_tokens: Sequence[str]) -> None:
        """Raises UsageError for a pattern or special tokens that cannot work."""
        self.pattern = pattern
        self.special_tokens = tuple(special_tokens)
        _check_pattern(pattern)
        _check_special_tokens(self.special_tokens)
        # A pattern may leave gaps between its matches; the last alternative keeps what is in them.
        self._compiled = regex.compile(f"{pattern}|[\\s\\S]")
        # An alternation takes the first alternative that fits: the longest has to come first.
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        self._specials = regex.compile(f"({'|'.join(map(regex.escape, longest_first)) or '(?!)'})")
        self._longest_special = max(map(len, self.special_tokens), default=0)

    def cut(self, text: str) -> list[str]:
        """The pieces of a whole text; joined, they are `text`."""
        pieces: list[str] = []
        for place, part in enumerate(self._specials.split(text)):
            if place % 2:
                pieces.append(part)
            else:
                pieces += self._compiled.findall(part)
        return pieces

    def cut_settled(self, text: str) -> tuple[list[str], str]:
        """The pieces that are the same whatever text follows, and the rest of `text` after them.

        Exact for patterns that never look behind a match, nor ahead of it beyond eight characters
        and the white space there: GPT-2's and GPT-4's are such patterns.
        """
        pieces: list[str] = []
        start = 0
        while True:
            special = self._specials.search(text, start)
            horizon = self._cut_off_special(text, start)
            if special is None or special.start() >= horizon:
                break
            pieces += self._compiled.findall(text[start : special.start()])
            pieces.append(special.group())
            start = special.end()
        ordinary = text[start:horizon]
        pretokens = self._compiled.findall(ordinary)
        settled, end = len(ordinary.rstrip()) - _MARGIN, len(ordinary)
        while pretokens and end > settled:
            end -= len(pretokens.pop())
        return pieces + pretokens, text[start + end :]

    def _cut_off_special(self, text: str, start: int) -> int:
        """Where the end of `text` may have cut off a special token, or the length of `text`."""
        for place in range(max(start, len(text) - self._longest_special + 1), len(text)):
            beginning = text[place:]
            if any(s != beginning and s.startswith(beginning) for s in self.special_tokens):
                return place
        return len(text)


def in_buffers(
    chunks: Iterable[str], take: Callable[[str, bool], tuple[Taken, str]]
) -> Iterator[Taken]:
    """What `take` makes of the chunks' concatenation, of which it gets a few thousand at a time.

    It is given a text and whether that is the last, and returns what it took and the rest, with
    which the next text begins.
    """
    held: list[str] = []
    held_length, enough = 0, _BUFFER
    for chunk in chunks:
        held.append(chunk)
        held_length += len(chunk)
        if held_length >= enough:
            taken, rest = take("".join(held), False)
            yield taken
            # Waiting for as much again keeps a very long piece in tiny chunks from being
            # rescanned for each of them.
            held, held_length, enough = [rest], len(rest), max(_BUFFER, 2 * len(rest))
    yield take("".join(held), True)[0]


def _check_pattern(pattern: str) -> None:
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise UsageError(
            f"split pattern {pattern!r} is not a regular expression: {error}"
        ) from error
    if compiled.groups:
        raise UsageError(f"split pattern {pattern!r} captures groups; write (?:...) for (...)")
    if compiled.fullmatch(""):
        raise UsageError(f"split pattern {pattern!r} matches the empty text; write + for *")


def _check_special_tokens(special_tokens: tuple[str, ...]) -> None:
    for token in special_tokens:
        if not token:
            raise UsageError("a special token is the empty text; leave it out")
        if special_tokens.count(token) > 1:
            raise UsageError(f"special token {token!r} is given more than once; name it once")
        try:
            token.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"special token {token!r} is not valid Unicode: {error}") from error
