"""Cutting a text after documents: with which special tokens the parts read as the whole does."""

from collections.abc import Sequence

from lmray.errors import UsageError
from lmray.tokenizer.pattern import END_OF_TEXT
from lmray.tokenizer.text import can_share


def shares_with_separator(special_tokens: Sequence[str]) -> list[str]:
    """Those that can stand in a text so that they have characters in common with the separator."""
    return [one for one in special_tokens if one != END_OF_TEXT and can_share(one, END_OF_TEXT)]


def check_separator(special_tokens: Sequence[str]) -> None:
    """Raises UsageError for special tokens with which parts could read otherwise than the whole."""
    if END_OF_TEXT not in special_tokens:
        raise UsageError(
            f"no special token {END_OF_TEXT!r} (there are {list(special_tokens)}), after which the "
            f"text is cut into parts; pass special_tokens=[{END_OF_TEXT!r}]"
        )
    for token in shares_with_separator(special_tokens):
        raise UsageError(
            f"special token {token!r} can share characters with {END_OF_TEXT!r}, between which the "
            f"text is cut into parts; leave it out, or use a tokenizer without it"
        )
