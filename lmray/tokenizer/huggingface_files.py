"""Hugging Face's tokenizer.json, as far as it describes byte-level BPE without additions.

What would give other ids than lmray's is refused by name: normalizers, prefix spaces, tokens added
around a text. The fields are those that `tokenizers` 0.23 writes.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from lmray.errors import CorruptionError, LmrayError, UsageError
from lmray.storage import read_json, write_json
from lmray.tokenizer.huggingface_pattern import from_huggingface, to_huggingface
from lmray.tokenizer.pattern import GPT2_PATTERN
from lmray.tokenizer.printable import is_spelling, read_entries, spell, spelt, write_entries
from lmray.tokenizer.text import can_share
from lmray.tokenizer.tokenizer import Tokenizer

_BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
_NO_OPTIONS = (None, False, "")


def read_tokenizer(path: Path | str) -> Tokenizer:
    """Reads a tokenizer.json that `write_tokenizer` or `tokenizers` wrote.

    Raises CorruptionError if it is damaged, and UsageError if it describes what lmray does not do.
    """
    record = _read(path)
    try:
        return _tokenizer(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, LmrayError):
            raise type(error)(f"{path}: {error}") from error
        raise CorruptionError(
            f"{path} is damaged ({type(error).__name__}: {error}); fetch the file again"
        ) from error


def write_tokenizer(path: Path | str, tokenizer: Tokenizer) -> None:
    """Writes a tokenizer.json with which `tokenizers` gives the same ids.

    Raises UsageError if no such file can be written.
    """
    specials = sorted(tokenizer.special_ids.items(), key=lambda item: item[1])
    _check_specials(tokenizer)
    write_json(
        path,
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    "id": token,
                    "content": content,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
                for content, token in specials
            ],
            "normalizer": None,
            "pre_tokenizer": _pre_tokenizer(tokenizer.pattern),
            "post_processor": None,
            "decoder": _BYTE_LEVEL,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                # Special tokens too: `tokenizers` gives one that is not here an id of its own.
                "vocab": write_entries(tokenizer.vocab, special_ids=dict(specials).values()),
                # A string a merge, for releases before 0.20 do not read lists.
                "merges": [f"{spell(left)} {spell(right)}" for left, right in tokenizer.merges],
            },
        },
    )


def _check_specials(tokenizer: Tokenizer) -> None:
    merged = {part for left, right in tokenizer.merges for part in (left, right, left + right)}
    for token in tokenizer.special_tokens:
        data = token.encode()
        if spell(data) != token and (data in merged or len(data) == 1):
            raise UsageError(
                f"special token {token!r} is also what merges make or use, and its bytes are spelt "
                f"{spell(data)!r}; tokenizer.json has one text for a token: use another special "
                f"token"
            )


def _pre_tokenizer(pattern: str) -> dict[str, Any]:
    if pattern == GPT2_PATTERN:
        return _BYTE_LEVEL
    split = {
        "type": "Split",
        "pattern": {"Regex": to_huggingface(pattern)},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [split, _BYTE_LEVEL | {"use_regex": False}]}


def _read(path: Path | str) -> dict[str, Any]:
    try:
        record = read_json(path)
    except OSError as error:
        raise UsageError(
            f"cannot read {path} ({error.strerror}); check the path and its permissions"
        ) from error
    if not isinstance(record, dict) or not isinstance(record.get("model"), dict):
        raise CorruptionError(f"{path} is no tokenizer.json of Hugging Face's: it has no model")
    return record


def _tokenizer(record: Mapping[str, Any]) -> Tokenizer:
    for key in ("normalizer", "truncation", "padding"):
        if record.get(key) is not None:
            raise UsageError(
                f"{key}={record[key]!r:.60} changes the text or its ids, which lmray leaves as "
                f"they are; set it to null if you can do without"
            )
    for key in ("post_processor", "decoder"):
        if record.get(key) is not None and record[key]["type"] != "ByteLevel":
            raise UsageError(
                f"{key} {record[key]['type']} is neither ByteLevel nor null: lmray adds no tokens "
                f"to a text; set it to null if you can do without"
            )
    pattern = _pattern(record.get("pre_tokenizer"))
    added = record.get("added_tokens") or []
    _check_added(added)
    model = record["model"]
    _check_model(model)
    merges = [_merge(merge) for merge in model["merges"]]
    if len(set(merges)) < len(merges):
        raise UsageError("a merge is listed twice; keep the one that counts")
    ids = {token["content"]: token["id"] for token in added}
    _check_plain(ids, model["vocab"], merges)
    entries = model["vocab"] | ids
    if not all(type(token) is int and token >= 0 for token in entries.values()):
        raise UsageError("its vocabulary does not map tokens to ids; fetch the file again")
    if len(set(entries.values())) < len(entries):
        raise UsageError("one id is given to several tokens; give each its own")
    vocab = read_entries(entries, plain=ids)
    if model.get("unk_token") is not None and len(_single_bytes(vocab)) < 256:
        raise UsageError(
            f"unk_token={model['unk_token']!r} stands for bytes that are no token, which lmray "
            f"refuses to encode; use a vocabulary with all 256"
        )
    return Tokenizer(vocab, merges, list(ids), pattern=pattern)


def _single_bytes(vocab: Mapping[int, bytes]) -> set[bytes]:
    return {data for data in vocab.values() if len(data) == 1}


def _pattern(pre_tokenizer: Any) -> str:
    parts = [pre_tokenizer]
    if isinstance(pre_tokenizer, dict) and pre_tokenizer["type"] == "Sequence":
        parts = pre_tokenizer["pretokenizers"]
    types = [part and part["type"] for part in parts]
    if types not in (["ByteLevel"], ["Split", "ByteLevel"]):
        raise UsageError(
            f"pre_tokenizer {types} is neither ByteLevel nor Split and ByteLevel: lmray cuts with "
            f"one regular expression"
        )
    *splits, byte_level = parts
    if byte_level["add_prefix_space"]:
        raise UsageError(
            "pre_tokenizer ByteLevel has add_prefix_space, but lmray encodes a text as it is; set "
            "it to false"
        )
    if byte_level.get("use_regex", True) == bool(splits):
        raise UsageError(
            "pre_tokenizer does not cut by exactly one of ByteLevel's use_regex and a Split; "
            "leave one"
        )
    if not splits:
        return GPT2_PATTERN
    (split,) = splits
    if split["behavior"] != "Isolated" or split["invert"] or "Regex" not in split["pattern"]:
        raise UsageError(
            f"pre_tokenizer Split with behavior {split['behavior']}, invert={split['invert']} and "
            f"a {'/'.join(split['pattern'])} is not Isolated, false and a Regex; lmray keeps "
            f"what a pattern does not match"
        )
    return from_huggingface(split["pattern"]["Regex"])


def _check_added(added: Sequence[Mapping[str, Any]]) -> None:
    for token in added:
        for option in ("single_word", "lstrip", "rstrip"):
            if token.get(option):
                raise UsageError(
                    f"added token {token['content']!r} has {option}, but lmray finds special "
                    f"tokens wherever they stand; set it to false"
                )
    # `tokenizers` looks for those that are not normalized first, lmray for all at once.
    for one, other in combinations(added, 2):
        if one.get("normalized") != other.get("normalized") and can_share(
            one["content"], other["content"]
        ):
            raise UsageError(
                f"added tokens {one['content']!r} and {other['content']!r} can share characters "
                f"and only one is normalized; set normalized to false for both"
            )


def _check_model(model: Mapping[str, Any]) -> None:
    if model.get("type", "BPE") != "BPE":
        raise UsageError(f"model {model['type']} is not BPE; lmray has byte-level BPE only")
    for key, value in model.items():
        known = key in ("type", "vocab", "merges", "unk_token", "fuse_unk")
        if not known and value not in _NO_OPTIONS:
            raise UsageError(
                f"model has {key}={value!r:.40}, which lmray does not do; use a tokenizer without"
            )


def _check_plain(
    ids: Mapping[str, int], entries: Mapping[str, int], merges: Sequence[tuple[bytes, bytes]]
) -> None:
    """Refuses an added token that stands in the vocabulary under another id or as other bytes."""
    used = {spell(part) for left, right in merges for part in (left, right, left + right)}
    for content, token in ids.items():
        if entries.get(content, token) != token:
            raise UsageError(
                f"added token {content!r} has id {token}, in the vocabulary {entries[content]}; "
                f"give it one"
            )
        bytes_differ = is_spelling(content) and spelt(content) != content.encode()
        if content in entries and bytes_differ and (len(content) == 1 or content in used):
            raise UsageError(
                f"added token {content!r} stands in the vocabulary as the bytes "
                f"{spelt(content)!r}; use another text for it"
            )


def _merge(merge: str | Sequence[str]) -> tuple[bytes, bytes]:
    """Both spellings: "a b", until tokenizers 0.20, and ["a", "b"] since."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    for part in (left, right):
        if not is_spelling(part):
            raise UsageError(
                f"merge {merge!r} is not of byte-level characters; lmray has byte-level BPE only"
            )
    return spelt(left), spelt(right)
