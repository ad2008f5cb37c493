"""Token bytes as printable text: GPT-2's spelling, which its files share with Hugging Face's."""

from collections.abc import Collection, Iterable, Mapping

from lmray.errors import UsageError


def byte_characters() -> dict[int, str]:
    """GPT-2's character for each byte: Latin-1's where that prints, else one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(0x100 + place) for place, byte in enumerate(others)
    }


_CHARACTER = byte_characters()
_BYTE = {character: byte for byte, character in _CHARACTER.items()}


def spell(data: bytes) -> str:
    """Bytes as text, a character each."""
    return "".join(_CHARACTER[byte] for byte in data)


def is_spelling(text: str) -> bool:
    """Whether `text` spells bytes."""
    return _BYTE.keys() >= set(text)


def spelt(text: str) -> bytes:
    """The bytes that `text` spells: the inverse of `spell`."""
    return bytes(_BYTE[character] for character in text)


def read_entries(entries: Mapping[str, int], *, plain: Collection[str]) -> dict[int, bytes]:
    """Token bytes by id; the tokens in `plain` stand in `entries` as plain text."""
    return {
        # A text that bytes cannot spell, such as one with a space, is a special token too.
        token: text.encode() if text in plain or not is_spelling(text) else spelt(text)
        for text, token in entries.items()
    }


def write_entries(vocab: Mapping[int, bytes], *, special_ids: Iterable[int]) -> dict[str, int]:
    """Ids by printable token, in the order of the ids; special tokens as plain text.

    Raises UsageError where a special token's text is how another token's bytes are spelt.
    """
    plain = set(special_ids)
    entries: dict[str, int] = {}
    for token, data in sorted(vocab.items()):
        text = data.decode() if token in plain else spell(data)
        if text in entries:
            raise UsageError(
                f"ids {entries[text]} and {token} would both be written as {text!r}: special "
                f"tokens stand in the file as plain text, other bytes as characters; use the "
                f"tiktoken format, or a special token of ASCII characters"
            )
        entries[text] = token
    return entries
