"""What becomes of special tokens that stand in a text, by the two arguments tiktoken has for it.

An allowed one is its id; a text with a disallowed one is refused; any other is ordinary text.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from lmray.errors import UsageError

Specials = Literal["all"] | Collection[str]
"""Special tokens, named or all of them; all that are disallowed are those that are not allowed."""


def resolve(
    known: Sequence[str], allowed: Specials, disallowed: Specials
) -> tuple[frozenset[str], frozenset[str]]:
    """The allowed and the disallowed special tokens; UsageError for what is none of the `known`."""
    taken = frozenset(known if allowed == "all" else _named("allowed_special", allowed, known))
    if disallowed == "all":
        return taken, frozenset(known) - taken
    return taken, frozenset(_named("disallowed_special", disallowed, known))


def _named(argument: str, tokens: Collection[str], known: Sequence[str]) -> Collection[str]:
    if isinstance(tokens, str):
        raise UsageError(
            f'{argument}={tokens!r} is one text; give "all" or several, as in {{{tokens!r}}}'
        )
    unknown = sorted(set(tokens) - set(known))
    if unknown:
        raise UsageError(
            f"{argument} names {unknown[0]!r}, which is no special token here (there are "
            f"{list(known)}); leave it out, or make the tokenizer with it"
        )
    return tokens


def refuse(
    text: str | bytes, disallowed: Iterable[str], *, start: int = 0, name: str = "the text"
) -> None:
    """Raises UsageError if `text` holds one of `disallowed`, anywhere, also within another.

    For the message, it is called `name` and begins at `start`, in characters or bytes.
    """
    unit = "character" if isinstance(text, str) else "byte"
    places = {token: _find(text, token) for token in disallowed}
    found = {token: place for token, place in places.items() if place >= 0}
    if found:
        token = min(found, key=lambda token: (found[token], token))
        where = f"{unit} {start + found[token]:,}"
        raise UsageError(
            f"{name} holds the special token {token!r} at {where}, which is disallowed; "
            f"for its id pass allowed_special={{{token!r}}} and disallow it no more, for the ids "
            f"of ordinary text leave it out of both"
        )


def refuse_in(chunks: Iterable[str], disallowed: Collection[str]) -> Iterable[str]:
    """The chunks as they come; UsageError before the first that completes a disallowed token."""
    if not disallowed:
        yield from chunks
        return
    kept = max(map(len, disallowed)) - 1
    tail, start = "", 0
    for chunk in chunks:
        seen = tail + chunk
        refuse(seen, disallowed, start=start)
        tail = seen[len(seen) - min(kept, len(seen)) :]
        start += len(seen) - len(tail)
        yield chunk


def _find(text: str | bytes, token: str) -> int:
    return text.find(token) if isinstance(text, str) else text.find(token.encode())
