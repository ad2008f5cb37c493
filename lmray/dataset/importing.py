"""Files of token ids and the tokenizer that made them, as a token dataset.

Shards end where `build` ends them in the text: after the first end-of-text token that completes
`shard_bytes`. So a corpus of one file a split, exported and imported, is the same shards.
"""

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np

from lmray.corpus import Corpus
from lmray.dataset.build import SHARD_BYTES
from lmray.dataset.manifest import ShardRow, ends_file, shard_file, write_manifest
from lmray.dataset.target import check_tokenizer, is_built, planned, tidy, write_array
from lmray.dataset.token_files import detect, open_ids
from lmray.errors import PreflightError
from lmray.progress import Progress, silent
from lmray.storage import locked, write_bytes
from lmray.tokenizer import Tokenizer, load_tokenizer

MOST_IDS = 1 << 24
"""A shard is cut here inside a document, where nothing has ended one for so long."""

TokenFile = tuple[Path, np.ndarray]
"""A file and the ids in it, on disk until they are read."""

_BLOCK = 1 << 20


def import_tokens(
    corpus: Corpus,
    tokenizer: Path,
    directory: Path,
    *,
    format: str = "",
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = silent,
) -> None:
    """Makes directory/{train,valid} of files of ids, a split's files one after the other.

    `corpus` has files of ids in place of text, in `format` or else each in the one it begins like.
    All ids are checked before anything is written. Raises PreflightError for an id that is no token
    of `tokenizer`, or if `directory` holds something else; UsageError for a tokenizer without
    `<|endoftext|>`; and as `open_ids`.
    """
    loaded = load_tokenizer(tokenizer)
    _ = loaded.end_of_text
    check_tokenizer(directory, loaded)
    splits = {
        split: [(path, open_ids(path, format=format or detect(path))) for path in paths]
        for split, paths in corpus.splits.items()
    }
    wanted = planned(corpus, loaded, shard_bytes)
    missing = {
        split: files for split, files in splits.items() if not is_built(directory / split, wanted)
    }
    for split, files in missing.items():
        _check_ids(split, files, loaded, progress)
    with locked(directory, f"another process is building {directory}; wait for it or stop it"):
        if not (directory / "tokenizer.json").exists():
            write_bytes(directory / "tokenizer.json", tokenizer.read_bytes())
        for split, files in missing.items():
            rows = _write_shards(files, directory / split, loaded, shard_bytes, progress)
            write_manifest(directory / split, wanted.model_copy(update={"shards": rows}))
            tidy(directory / split, len(rows))


def _check_ids(
    split: str, files: list[TokenFile], tokenizer: Tokenizer, progress: Progress
) -> None:
    if not files:
        raise PreflightError(f"the {split} split has no files; give --{split} FILE")
    is_token = np.zeros(tokenizer.vocab_size, dtype=bool)
    is_token[list(tokenizer.vocab)] = True
    total = sum(len(ids) for _path, ids in files)
    done = 0
    for path, ids in files:
        for start in range(0, len(ids), _BLOCK):
            block = ids[start : start + _BLOCK]
            # Signed ids below 0 are no indices here; the rest is compared as it is.
            inside = (block >= 0) & (block < tokenizer.vocab_size)
            good = inside & is_token[np.where(inside, block, 0)]
            if not good.all():
                place = int(np.argmin(good))
                raise PreflightError(
                    f"id {block[place]} at position {start + place} of {path} is no token of this "
                    f"tokenizer, which has {tokenizer.vocab_size:,} ids; give the tokenizer that "
                    f"encoded it"
                )
            done += len(block)
            progress(f"check {split}", done, total, "tokens")


def _write_shards(
    files: list[TokenFile],
    target: Path,
    tokenizer: Tokenizer,
    shard_bytes: int,
    progress: Progress,
) -> list[ShardRow]:
    token_bytes = tokenizer.token_bytes().astype(np.int64)
    edges = list(accumulate(len(ids) for _path, ids in files))
    names = [path.name for path, _ids in files]
    rows: list[ShardRow] = []
    position = size = 0
    shards = _shards(files, token_bytes, tokenizer.end_of_text, shard_bytes)
    for index, ids in enumerate(shards):
        start, stop = position, position + len(ids)
        ends = np.flatnonzero(ids == tokenizer.end_of_text) + 1
        rest = ids[ends[-1] if len(ends) else 0 :]
        # As of a text: what follows the last separator is a document if more than white space.
        if stop == edges[-1] and tokenizer.decode_bytes(rest.tolist()).strip():
            ends = np.append(ends, len(ids))
        begun, size = size, size + int(token_bytes[ids].sum())
        rows.append(
            ShardRow(
                index=index,
                source=names[int(np.searchsorted(edges, start, side="right"))],
                start=begun,
                end=size,
                tokens=len(ids),
                documents=len(ends),
                sha256=write_array(target / shard_file(index), ids.astype(tokenizer.id_dtype)),
                ends_sha256=write_array(target / ends_file(index), ends.astype(np.uint64)),
            )
        )
        position = stop
        progress(f"import {target.name}", position, edges[-1], "tokens")
    return rows


def _shards(
    files: list[TokenFile], token_bytes: np.ndarray, end_of_text: int, shard_bytes: int
) -> Iterator[np.ndarray]:
    """The ids of each shard, as int64."""
    held = np.empty(0, dtype=np.int64)
    for _path, ids in files:
        for place in range(0, len(ids), _BLOCK):
            held = np.concatenate([held, ids[place : place + _BLOCK].astype(np.int64)])
            ends = np.flatnonzero(held == end_of_text) + 1
            sizes = np.cumsum(token_bytes[held])[ends - 1]
            start = begun = 0
            while (cut := int(np.searchsorted(sizes, begun + shard_bytes))) < len(ends):
                yield held[start : ends[cut]]
                start, begun = int(ends[cut]), int(sizes[cut])
            while len(held) - start > MOST_IDS:
                yield held[start : start + MOST_IDS]
                start += MOST_IDS
            held = held[start:]
    if len(held):
        yield held
