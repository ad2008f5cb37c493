"""GPT-2's files: vocab.json (token to id) and merges.txt (a pair a line), with printable bytes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lmray.errors import CorruptionError, UsageError
from lmray.storage import write_bytes


def byte_characters() -> dict[int, str]:
    """GPT-2's character for each byte: Latin-1's where that prints, else one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(0x100 + place) for place, byte in enumerate(others)
    }


_CHARACTER = byte_characters()
_BYTE = {character: byte for byte, character in _CHARACTER.items()}
_HEADER = "#version: 0.2"


def read_vocab(path: Path | str, *, special_tokens: Iterable[str]) -> dict[int, bytes]:
    """Token bytes by id from a vocab.json; special tokens stand there as plain text."""
    plain = set(special_tokens)
    try:
        entries = json.loads(_read(path))
    except ValueError as error:
        raise CorruptionError(
            f"{path} is not valid JSON ({error}); fetch the file again"
        ) from error
    if not isinstance(entries, dict) or not all(type(token) is int for token in entries.values()):
        raise CorruptionError(f"{path} does not map tokens to ids; give GPT-2's vocab.json")
    if len(set(entries.values())) < len(entries):
        raise CorruptionError(f"{path} gives one id to several tokens; fetch the file again")
    return {
        # A text that bytes cannot spell, such as one with a space, is a special token too.
        token: text.encode() if text in plain or not _BYTE.keys() >= set(text) else _spelt(text)
        for text, token in entries.items()
    }


def read_merges(path: Path | str) -> list[tuple[bytes, bytes]]:
    """The merges of a merges.txt, first learnt first."""
    merges = []
    for number, line in enumerate(_read(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not all(part and _BYTE.keys() >= set(part) for part in parts):
            raise CorruptionError(
                f"{path}:{number} is not a merge of two tokens: {line!r}; give GPT-2's merges.txt"
            )
        merges.append((_spelt(parts[0]), _spelt(parts[1])))
    return merges


def write_vocab(
    path: Path | str, vocab: Mapping[int, bytes], *, special_ids: Iterable[int]
) -> None:
    """Writes a vocab.json, special tokens as plain text."""
    plain = set(special_ids)
    entries = {
        data.decode() if token in plain else _spell(data): token for token, data in vocab.items()
    }
    write_bytes(path, json.dumps(entries, ensure_ascii=False).encode())


def write_merges(path: Path | str, merges: Sequence[tuple[bytes, bytes]]) -> None:
    """Writes a merges.txt."""
    lines = [_HEADER, *(f"{_spell(left)} {_spell(right)}" for left, right in merges)]
    write_bytes(path, "".join(line + "\n" for line in lines).encode())


def _spell(data: bytes) -> str:
    return "".join(_CHARACTER[byte] for byte in data)


def _spelt(text: str) -> bytes:
    return bytes(_BYTE[character] for character in text)


def _read(path: Path | str) -> str:
    try:
        return Path(path).read_bytes().decode()
    except OSError as error:
        raise UsageError(
            f"cannot read {path} ({error.strerror}); check the path and its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise CorruptionError(
            f"{path} is not UTF-8 text ({error}); fetch the file again"
        ) from error
