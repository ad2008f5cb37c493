"""GPT-2's files: vocab.json (token to id) and merges.txt (a pair a line), with printable bytes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lmray.errors import CorruptionError, UsageError
from lmray.storage import write_bytes
from lmray.tokenizer.printable import is_spelling, read_entries, spell, spelt, write_entries

_HEADER = "#version: 0.2"


def read_vocab(path: Path | str, *, special_tokens: Iterable[str]) -> dict[int, bytes]:
    """Token bytes by id from a vocab.json; special tokens stand there as plain text."""
    try:
        entries = json.loads(_read(path))
    except ValueError as error:
        raise CorruptionError(
            f"{path} is not valid JSON ({error}); fetch the file again"
        ) from error
    if not isinstance(entries, dict) or not all(
        type(token) is int and token >= 0 for token in entries.values()
    ):
        raise CorruptionError(f"{path} does not map tokens to ids; give GPT-2's vocab.json")
    if len(set(entries.values())) < len(entries):
        raise CorruptionError(f"{path} gives one id to several tokens; fetch the file again")
    return read_entries(entries, plain=set(special_tokens))


def read_merges(path: Path | str) -> list[tuple[bytes, bytes]]:
    """The merges of a merges.txt, first learnt first."""
    merges = []
    for number, line in enumerate(_read(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not all(part and is_spelling(part) for part in parts):
            raise CorruptionError(
                f"{path}:{number} is not a merge of two tokens: {line!r}; give GPT-2's merges.txt"
            )
        merges.append((spelt(parts[0]), spelt(parts[1])))
    return merges


def check_complete(
    vocab: Mapping[int, bytes],
    merges: Sequence[tuple[bytes, bytes]],
    special_tokens: Iterable[str],
) -> None:
    """Raises UsageError if a token of `vocab` is no byte, no merge makes it and it is not special.

    So a merges.txt that was cut off, or is another tokenizer's, does not pass for a whole one.
    """
    made = {left + right for left, right in merges}
    made |= {token.encode() for token in special_tokens}
    unmade = [token for token, data in sorted(vocab.items()) if len(data) > 1 and data not in made]
    if unmade:
        raise UsageError(
            f"no merge makes {len(unmade):,} tokens of vocab.json, the first of which is id "
            f"{unmade[0]}, {vocab[unmade[0]]!r}; give the merges.txt that belongs to it, whole, "
            f"and name special tokens with --special"
        )


def write_vocab(
    path: Path | str, vocab: Mapping[int, bytes], *, special_ids: Iterable[int]
) -> None:
    """Writes a vocab.json, special tokens as plain text; UsageError as `write_entries`."""
    entries = write_entries(vocab, special_ids=special_ids)
    write_bytes(path, json.dumps(entries, ensure_ascii=False).encode())


def write_merges(path: Path | str, merges: Sequence[tuple[bytes, bytes]]) -> None:
    """Writes a merges.txt."""
    lines = [_HEADER, *(f"{spell(left)} {spell(right)}" for left, right in merges)]
    write_bytes(path, "".join(line + "\n" for line in lines).encode())


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
