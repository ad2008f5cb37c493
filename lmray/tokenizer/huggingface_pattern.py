"""Split patterns between `regex`, which lmray uses, and Oniguruma, which Hugging Face's does.

Both read the patterns of published tokenizers alike, but not all regular expressions: `\\d{3}+` is
possessive in one and repeats a repeat in the other, `$` is the end of the text or of a line.
"""

import regex

from lmray.errors import UsageError
from lmray.tokenizer import native
from lmray.tokenizer.pattern import GPT4_PATTERN

_SPELT_OTHERWISE = {
    GPT4_PATTERN: GPT4_PATTERN.replace(r"\p{N}{1,3}+", r"(?>\p{N}{1,3})").replace("$", r"\z"),
}
"""What Oniguruma reads as `regex` does a pattern whose own spelling it reads otherwise."""

_ANY = r"|[\s\S]"

_PORTABLE = regex.compile(
    r"""(?x)
    (?: \\[pP]\{\^?\w+\} | \\[sSdDrnt] | \\[^\w\s]               # classes, escapes
      | [^\\\[\](){}^$*+?]                                       # itself, the dot and | too
      | \[\^?\]?(?: \\[pP]\{\^?\w+\} | \\[sSdDrnt] | \\[^\w\s]
                  | (?!--|&&|\|\||~~)[^\\\[\]] )+\]
      | \(\?(?:[:=!>]|i:) | \)
      | [?*+][?+]?+(?![?*+]) | \{\d+(?:,\d*+)?\}\??(?![?*+])
    )*+
    """
)


def to_huggingface(pattern: str) -> str:
    """The regular expression for a Split whose pieces are lmray's, each match one and no gaps.

    lmray cuts what the pattern does not match into characters, which `tokenizers` leaves whole.
    """
    if pattern in _SPELT_OTHERWISE:
        return _SPELT_OTHERWISE[pattern]
    _check_portable(pattern)
    # Patterns that have kernels match at every place of every text.
    return pattern if native.knows(pattern) else pattern + _ANY


def from_huggingface(expression: str) -> str:
    """The split pattern that cuts as a Split does that isolates `expression`."""
    for pattern, spelt in _SPELT_OTHERWISE.items():
        if expression == spelt:
            return pattern
    _check_portable(expression)
    if native.knows(expression):
        return expression
    if expression.endswith(_ANY):
        return expression.removesuffix(_ANY)
    # One piece for as long as nothing matches; where everything does, it is never tried.
    return rf"{expression}|(?:(?!{expression})[\s\S])+"


def _check_portable(pattern: str) -> None:
    read = _PORTABLE.match(pattern)
    if read is None or read.end() < len(pattern):
        rest = pattern[read.end() if read else 0 :]
        raise UsageError(
            f"split pattern {pattern!r} may not mean the same to `tokenizers` (Oniguruma) from "
            f"{rest!r:.20} on; write it without possessive intervals, anchors, looking behind, "
            f"\\w, \\b and set operations"
        )
