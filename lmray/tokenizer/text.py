"""Text and bytes: the two ways in which strings that are not well-formed are carried.

Bytes travel as text decoded with `surrogateescape`: each byte that is not part of valid UTF-8
becomes one lone surrogate, which turns back into the same byte, so nothing is dropped. In text that
a caller gives, a lone surrogate stands for no byte and is replaced.
"""

from collections.abc import Iterable, Iterator


def to_text(data: bytes) -> str:
    """Bytes as text in which every invalid byte is a lone surrogate."""
    return data.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """The inverse of `to_text`."""
    return text.encode("utf-8", "surrogateescape")


def well_formed(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates turned into U+FFFD, as in tiktoken."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def well_formed_chunks(chunks: Iterable[str]) -> Iterator[str]:
    """`well_formed` of the concatenation: half a surrogate pair waits for the next chunk."""
    half = ""
    for chunk in chunks:
        text = half + chunk
        half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        yield well_formed(text.removesuffix(half))
    yield well_formed(half)


def can_share(one: str, other: str) -> bool:
    """Whether a text can hold both so that they share characters."""
    lengths = range(1, min(len(one), len(other)))
    return (
        one in other
        or other in one
        or any(one.endswith(other[:n]) or other.endswith(one[:n]) for n in lengths)
    )
