"""lmray's own tokenizer file: plain JSON that proves itself when it is read."""

from pathlib import Path
from typing import Any

from lmray.errors import CorruptionError, UsageError
from lmray.storage import read_json, write_json
from lmray.tokenizer.learning import TIE_BREAKS, TieBreak
from lmray.tokenizer.tokenizer import Tokenizer

FORMAT = "lmray-tokenizer"
VERSION = 1

PROBE = (
    "It's 2,048 tokens; they'll say \"naïve café\"  twice,\n\n\tthen 東京 🙂 and\r\n"
    "def f(x): return x**2 != -1  \u00a0#end<|endoftext|>Once upon a time   "
)
"""Text whose ids are kept in the file: contractions, numbers, scripts, white space, specials."""


def save(
    tokenizer: Tokenizer, path: Path | str, *, corpus_digest: str, tie_break: TieBreak = "bytes"
) -> None:
    """Writes `tokenizer` to `path`, whole or not at all.

    `corpus_digest` is that of its text, `tie_break` the rule by which its merges were learnt.
    """
    write_json(
        path,
        {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": tokenizer.fingerprint,
            "corpus_digest": corpus_digest,
            "pattern": tokenizer.pattern,
            "tie_break": TIE_BREAKS[tie_break],
            "special_tokens": tokenizer.special_tokens,
            "probe": {"text": PROBE, "ids": tokenizer.encode(PROBE)},
            "vocab": {str(token): data.hex() for token, data in tokenizer.vocab.items()},
            "merges": [f"{left.hex()} {right.hex()}" for left, right in tokenizer.merges],
        },
    )


def load(path: Path | str) -> Tokenizer:
    """Reads a tokenizer that `save` wrote.

    Raises UsageError if there is no such file, and CorruptionError if it is not as it was written:
    its fingerprint is computed and its probe text encoded anew.
    """
    record = _read(path)
    try:
        tokenizer = Tokenizer(
            {int(token): bytes.fromhex(data) for token, data in record["vocab"].items()},
            [_merge(line) for line in record["merges"]],
            record["special_tokens"],
            pattern=record["pattern"],
        )
        fingerprint, probe = record["fingerprint"], record["probe"]
        text, ids = probe["text"], probe["ids"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptionError(
            f"{path} is damaged ({type(error).__name__}: {error}); restore it or train it again"
        ) from error
    if tokenizer.fingerprint != fingerprint:
        raise CorruptionError(
            f"{path} was altered: its fingerprint is {fingerprint}, its content's "
            f"{tokenizer.fingerprint}; restore it or train it again"
        )
    if tokenizer.encode(text) != ids:
        raise CorruptionError(
            f"{path} encodes its probe text to other ids than when it was saved; use the lmray "
            f"version that wrote it, or train it again"
        )
    return tokenizer


def _read(path: Path | str) -> dict[str, Any]:
    try:
        record = read_json(path)
    except OSError as error:
        raise UsageError(
            f"cannot read tokenizer {path} ({error.strerror}); check the path, or train one first"
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise CorruptionError(f"{path} is not a {FORMAT} file; give the tokenizer.json lmray wrote")
    if record.get("version") != VERSION:
        raise CorruptionError(
            f"{path} has format version {record.get('version')}, this lmray reads {VERSION}; "
            f"use the lmray version that wrote it"
        )
    return record


def _merge(line: str) -> tuple[bytes, bytes]:
    left, right = line.split(" ")
    return bytes.fromhex(left), bytes.fromhex(right)
