"""The file formats that tokenizers travel in: which there are, which a file is in, both ways."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmray.errors import UsageError
from lmray.storage import read_json
from lmray.tokenizer import files, gpt2_files, huggingface_files, tiktoken_files
from lmray.tokenizer.pattern import END_OF_TEXT, GPT2_PATTERN, Pretokenizer
from lmray.tokenizer.tokenizer import Tokenizer

SPECIALS = (END_OF_TEXT,)
"""The special tokens that are meant where a format keeps none and no others are named."""

_WITH_ID = re.compile(r"(?s)(.+)=(\d{1,9})")


@dataclass(frozen=True)
class Format:
    """A way to keep a tokenizer in files."""

    files: tuple[str, ...]
    """What the files are called, in the order in which `read` and `write` take them."""
    read: Callable[[Sequence[Path], Sequence[str], str], Tokenizer]
    """Of the files, special tokens as `special_ids` takes them, and split pattern."""
    write: Callable[[Tokenizer, Sequence[Path]], None]


def read_tokenizer(
    paths: Sequence[Path],
    *,
    format: str,
    special_tokens: Sequence[str] = SPECIALS,
    pattern: str = GPT2_PATTERN,
) -> Tokenizer:
    """Reads a tokenizer from files in one of FORMATS.

    `special_tokens` (each TOKEN or TOKEN=ID) and `pattern` are for formats that keep none. Raises
    UsageError and CorruptionError for what does not make a tokenizer.
    """
    wanted = _format(format)
    if len(paths) != len(wanted.files):
        raise UsageError(
            f"{len(paths)} files are not a tokenizer in the {format} format; give "
            f"{' and '.join(wanted.files)}"
        )
    Pretokenizer(pattern, _names(special_tokens))  # refuses those that cannot work
    return wanted.read(paths, special_tokens, pattern)


def write_tokenizer(tokenizer: Tokenizer, folder: Path, *, format: str) -> list[Path]:
    """Writes a tokenizer to files in `folder`, which it returns.

    Raises UsageError if the format cannot express it or a file of that name is there already.
    """
    wanted = _format(format)
    paths = [folder / name for name in wanted.files]
    for path in paths:
        if path.exists():
            raise UsageError(f"{path} is there already; choose another folder or delete it")
    _check_bytes(tokenizer)
    if len(set(tokenizer.merges)) < len(tokenizer.merges):
        raise UsageError("a merge is listed twice, of which other programs take the last")
    wanted.write(tokenizer, paths)
    return paths


def detect(paths: Sequence[Path]) -> tuple[str, list[Path]]:
    """The format that files are in by their content, and the files in that format's order.

    Raises UsageError for none of FORMATS.
    """
    if len(paths) == 2:
        return "gpt2", sorted(paths, key=_begins_as_json, reverse=True)
    if len(paths) == 1 and not _begins_as_json(paths[0]):
        return "tiktoken", list(paths)
    record = read_json(paths[0]) if len(paths) == 1 else []
    if isinstance(record, dict) and isinstance(record.get("model"), dict):
        return "huggingface", list(paths)
    if isinstance(record, dict) and record.get("format") == files.FORMAT:
        raise UsageError(f"{paths[0]} is lmray's own tokenizer.json; use its folder as it is")
    known = "; ".join(f"{name}: {' and '.join(each.files)}" for name, each in FORMATS.items())
    given = ", ".join(map(str, paths))
    raise UsageError(f"{given}: not the files of a known tokenizer format ({known})")


def special_ids(given: Sequence[str], vocab: Mapping[int, bytes]) -> dict[str, int]:
    """The ids of special tokens, each TOKEN or TOKEN=ID, beside or in `vocab`.

    A token without ID keeps the one it has in `vocab`, or gets the next after the greatest. Raises
    UsageError where an ID is not free.
    """
    tokens = dict(vocab)
    known = {data: token for token, data in vocab.items()}
    ids: dict[str, int] = {}
    for each in given:
        name, number = _name_and_id(each)
        data = name.encode()
        token = int(number) if number else known.get(data, max(tokens, default=-1) + 1)
        if tokens.get(token, data) != data or known.get(data, token) != token:
            has = f"is {tokens[token]!r}" if token in tokens else f"is not {known[data]}, its own"
            raise UsageError(
                f"special token {name!r} cannot have id {token}, which {has}; leave the id out or "
                f"give another"
            )
        ids[name] = known[data] = token
        tokens[token] = data
    return ids


def _name_and_id(special_token: str) -> tuple[str, str]:
    match = _WITH_ID.fullmatch(special_token)
    return (match[1], match[2]) if match else (special_token, "")


def _names(special_tokens: Sequence[str]) -> list[str]:
    return [_name_and_id(token)[0] for token in special_tokens]


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise UsageError(f"unknown tokenizer format {name!r}; choose {', '.join(FORMATS)}")
    return FORMATS[name]


def _begins_as_json(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip()[:1] in (b"{", b"[")
    except OSError as error:
        raise UsageError(
            f"cannot read {path} ({error.strerror}); check the path and its permissions"
        ) from error


def _check_bytes(tokenizer: Tokenizer) -> None:
    """Other programs drop a byte that is no token, or stop at it, without a word."""
    single = {data for data in tokenizer.vocab.values() if len(data) == 1}
    absent = [byte for byte in range(256) if bytes([byte]) not in single]
    if absent:
        raise UsageError(
            f"{len(absent)} of the 256 bytes are no token (the first is {bytes(absent[:1])!r}), so "
            f"other programs would drop them from a text; export a tokenizer with all"
        )


def _read_gpt2(paths: Sequence[Path], special_tokens: Sequence[str], pattern: str) -> Tokenizer:
    if pattern != GPT2_PATTERN:
        raise UsageError(
            "vocab.json and merges.txt mean GPT-2's split pattern; leave --pattern out"
        )
    vocab_file, merges_file = paths
    names = _names(special_tokens)
    vocab = gpt2_files.read_vocab(vocab_file, special_tokens=names)
    merges = gpt2_files.read_merges(merges_file)
    gpt2_files.check_complete(vocab, merges, names)
    return _with_specials(vocab, merges, special_tokens, pattern)


def _write_gpt2(tokenizer: Tokenizer, paths: Sequence[Path]) -> None:
    if tokenizer.pattern != GPT2_PATTERN:
        raise UsageError(
            "vocab.json and merges.txt mean GPT-2's split pattern, and this tokenizer has another; "
            "use the huggingface format"
        )
    gpt2_files.check_complete(tokenizer.vocab, tokenizer.merges, tokenizer.special_tokens)
    vocab_file, merges_file = paths
    gpt2_files.write_vocab(vocab_file, tokenizer.vocab, special_ids=tokenizer.special_ids.values())
    gpt2_files.write_merges(merges_file, tokenizer.merges)


def _read_tiktoken(paths: Sequence[Path], special_tokens: Sequence[str], pattern: str) -> Tokenizer:
    ranks = tiktoken_files.read_ranks(paths[0])
    vocab = {rank: token for token, rank in ranks.items()}
    try:
        merges = tiktoken_files.merges_of(ranks)
    except UsageError as error:
        raise UsageError(f"{paths[0]}: {error}") from error
    return _with_specials(vocab, merges, special_tokens, pattern)


def _with_specials(
    vocab: dict[int, bytes],
    merges: list[tuple[bytes, bytes]],
    special_tokens: Sequence[str],
    pattern: str,
) -> Tokenizer:
    ids = special_ids(special_tokens, vocab)
    return Tokenizer(
        vocab | {token: name.encode() for name, token in ids.items()},
        merges,
        list(ids),
        pattern=pattern,
    )


def _read_huggingface(
    paths: Sequence[Path], special_tokens: Sequence[str], pattern: str
) -> Tokenizer:
    if (tuple(special_tokens), pattern) != (SPECIALS, GPT2_PATTERN):
        raise UsageError(
            f"{paths[0]} names its special tokens and split pattern; leave out --special and "
            f"--pattern"
        )
    return huggingface_files.read_tokenizer(paths[0])


FORMATS = {
    "gpt2": Format(("vocab.json", "merges.txt"), _read_gpt2, _write_gpt2),
    "tiktoken": Format(
        ("tokenizer.tiktoken",),
        _read_tiktoken,
        lambda tokenizer, paths: tiktoken_files.write_ranks(paths[0], tokenizer),
    ),
    "huggingface": Format(
        ("tokenizer.json",),
        _read_huggingface,
        lambda tokenizer, paths: huggingface_files.write_tokenizer(paths[0], tokenizer),
    ),
}
"""Formats by name."""
