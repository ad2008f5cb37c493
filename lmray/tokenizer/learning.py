"""Learning merges: the most frequent pair of neighbouring tokens becomes a token, over and over."""

from collections.abc import Sequence
from typing import Literal

from lmray.errors import PreflightError, UsageError
from lmray.progress import Progress, silent
from lmray.tokenizer import native
from lmray.tokenizer.counts import PretokenCounts
from lmray.tokenizer.native_learner import NativeLearner
from lmray.tokenizer.plain_learner import PlainLearner
from lmray.tokenizer.printable import byte_characters

TieBreak = Literal["bytes", "huggingface"]
"""A rule for which of several equally frequent pairs is merged."""

TIE_BREAKS: dict[TieBreak, str] = {
    "bytes": "lexicographically greatest pair of byte strings",
    "huggingface": "smallest pair of ids, bytes in the order of their characters (Hugging Face)",
}
"""What each rule says; recorded with every tokenizer."""

_BYTE_WORTH = 4
"""Bytes of text that one of a distinct pre-token is worth: plain Python learns from it so long."""


def learn_merges(
    counts: PretokenCounts,
    *,
    vocab_size: int,
    special_tokens: Sequence[str],
    tie_break: TieBreak = "bytes",
    progress: Progress = silent,
) -> list[tuple[bytes, bytes]]:
    """The merges, in order, that fill a vocabulary of `vocab_size` beside bytes and special tokens.

    Raises UsageError if the vocabulary has no room for bytes and special tokens, and
    PreflightError, saying how many merges there are, if `counts` gives too few.
    """
    wanted = check_vocab_size(vocab_size, special_tokens)
    by_bytes, first_bytes = tie_break == "bytes", list(range(256))
    if not by_bytes:
        first_bytes.sort(key=byte_characters().__getitem__)
    learner = (
        NativeLearner(counts, wanted, first_bytes, by_bytes=by_bytes)
        if native.enough(_BYTE_WORTH * len(counts.data))
        else PlainLearner(counts, wanted, first_bytes, by_bytes=by_bytes)
    )
    while learner.learn():
        progress("merges", len(learner.merges), wanted, "merges")
    found = len(learner.merges)
    if found < wanted:
        raise PreflightError(
            f"vocabulary of {vocab_size:,} asked for, but this corpus gives only {found:,} merges: "
            f"at most {found + 256 + len(special_tokens):,}; lower --vocab-size or use more text"
        )
    progress("merges", found, wanted, "merges")
    tokens = [bytes([byte]) for byte in first_bytes]
    merges = []
    for left, right in learner.merges:
        merges.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    return merges


def vocabulary(
    merges: Sequence[tuple[bytes, bytes]], special_tokens: Sequence[str]
) -> dict[int, bytes]:
    """Token bytes by id: the 256 bytes, then each merge's result, then the special tokens."""
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [left + right for left, right in merges]
    tokens += [token.encode() for token in special_tokens]
    return dict(enumerate(tokens))


def check_vocab_size(vocab_size: int, special_tokens: Sequence[str]) -> int:
    """The number of merges a vocabulary has room for.

    Raises UsageError if that is negative.
    """
    fixed = 256 + len(special_tokens)
    if vocab_size < fixed:
        raise UsageError(
            f"vocabulary of {vocab_size} is too small for 256 bytes and {len(special_tokens)} "
            f"special tokens; ask for at least {fixed}"
        )
    return vocab_size - fixed
