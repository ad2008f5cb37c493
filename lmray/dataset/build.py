"""Encoding a corpus into shards: a plan of byte ranges, one task a shard, and the manifest last.

Shard i is the tokens of byte range i, so it depends on the corpus, the tokenizer and the shard size
and not on who makes it. A task leaves its arrays and then a row, each renamed into place; building
again makes only the shards whose row is missing.
"""

import hashlib
import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from lmray.corpus import SEPARATOR, ByteRange, Corpus, byte_ranges
from lmray.dataset.manifest import (
    DType,
    Manifest,
    ShardRow,
    ends_file,
    read_manifest,
    shard_file,
    write_manifest,
)
from lmray.errors import CorruptionError, PreflightError
from lmray.progress import Progress, silent
from lmray.storage import canonical_json, read_json, sha256_file, write_bytes, write_json
from lmray.tokenizer import Tokenizer, load_tokenizer

SHARD_BYTES = 4 << 20
"""Text bytes a shard holds by default: small enough that ten megabytes keep two workers busy."""


@dataclass(frozen=True)
class ShardTask:
    """What a worker needs to make one shard; its paths must mean the same files to it."""

    index: int
    range: ByteRange
    tokenizer: str
    """Path of tokenizer.json."""
    directory: str
    """The split's directory, for the arrays."""
    rows: str
    """Directory for the row, named for what the split is made from."""


RunTasks = Callable[[Sequence[ShardTask]], Iterable[ShardRow]]
"""Carries out tasks in any order, here or on a cluster, and yields their rows."""


def run_here(tasks: Sequence[ShardTask]) -> Iterator[ShardRow]:
    """Carries out tasks one after the other in this process."""
    return map(make_shard, tasks)


def build(
    corpus: Corpus,
    tokenizer: Path,
    directory: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    run_tasks: RunTasks = run_here,
    progress: Progress = silent,
) -> None:
    """Encodes both splits of `corpus` into directory/{train,valid}; what is there already is kept.

    Raises PreflightError if `directory` holds another corpus or tokenizer, or a split has no text.
    """
    loaded = load_tokenizer(tokenizer)
    digest = corpus.digest()
    directory.mkdir(parents=True, exist_ok=True)
    _claim(directory, tokenizer, loaded)
    for split, files in (("train", corpus.train), ("valid", corpus.valid)):
        wanted = Manifest(
            dtype=_dtype(loaded),
            vocab_size=loaded.vocab_size,
            tokenizer=loaded.fingerprint,
            corpus=digest,
            shard_bytes=shard_bytes,
            shards=[],
        )
        if not _is_built(directory / split, wanted):
            _build_split(files, directory / split, wanted, run_tasks, progress)


def _dtype(tokenizer: Tokenizer) -> DType:
    return "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"


def _claim(directory: Path, source: Path, tokenizer: Tokenizer) -> None:
    own = directory / "tokenizer.json"
    if not own.exists():
        write_bytes(own, source.read_bytes())
    elif (found := load_tokenizer(own).fingerprint) != tokenizer.fingerprint:
        raise PreflightError(
            f"{directory} holds tokens of another tokenizer ({found[:12]}, not "
            f"{tokenizer.fingerprint[:12]}); choose another --name or delete it"
        )


def _is_built(target: Path, wanted: Manifest) -> bool:
    if not (target / "manifest.json").exists():
        return False
    found = read_manifest(target)
    differing = [
        f"{key}={getattr(found, key)!r} instead of {value!r}"
        for key, value in wanted
        if key != "shards" and value != getattr(found, key)
    ]
    if differing:
        raise PreflightError(
            f"{target} was made from something else: {'; '.join(differing)}; "
            f"choose another --name or delete it"
        )
    return True


def _build_split(
    files: Sequence[Path],
    target: Path,
    manifest: Manifest,
    run_tasks: RunTasks,
    progress: Progress,
) -> None:
    ranges = [r for file in files for r in byte_ranges(file, target_bytes=manifest.shard_bytes)]
    if not ranges:
        raise PreflightError(f"nothing to encode: {', '.join(map(str, files))} has no text")
    identity = hashlib.sha256(canonical_json(manifest.model_dump()).encode()).hexdigest()[:12]
    rows_directory = target / f"rows-{identity}"
    rows_directory.mkdir(parents=True, exist_ok=True)
    tokenizer = str(target.parent / "tokenizer.json")
    tasks = [
        ShardTask(index, part, tokenizer, str(target), str(rows_directory))
        for index, part in enumerate(ranges)
    ]
    rows = {row.index: row for task in tasks if (row := _finished(task)) is not None}
    total = sum(part.size for part in ranges)
    done = sum(row.end - row.start for row in rows.values())
    phase = f"encode {target.name}"
    progress(phase, done, total, "bytes")
    for row in run_tasks([task for task in tasks if task.index not in rows]):
        rows[row.index] = row
        done += row.end - row.start
        progress(phase, done, total, "bytes")
    in_order = [rows[index] for index in range(len(tasks))]
    write_manifest(target, manifest.model_copy(update={"shards": in_order}))
    for leftover in target.glob("rows-*"):
        shutil.rmtree(leftover)


def _row_file(task: ShardTask) -> Path:
    return Path(task.rows) / f"shard-{task.index:05d}.json"


def _finished(task: ShardTask) -> ShardRow | None:
    """The row an interrupted build left for `task`, if the array beside it is what the row says."""
    if not _row_file(task).exists():
        return None
    try:
        row = ShardRow.model_validate(read_json(_row_file(task)))
    except (CorruptionError, ValidationError):
        return None
    array = Path(task.directory) / shard_file(row.index)
    return row if array.exists() and sha256_file(array) == row.sha256 else None


@lru_cache(maxsize=1)
def _tokenizer(path: str) -> Tokenizer:
    return load_tokenizer(Path(path))


def make_shard(task: ShardTask) -> ShardRow:
    """Encodes one byte range and leaves its two arrays and its row on disk."""
    tokenizer = _tokenizer(task.tokenizer)
    text = task.range.read()
    ids = np.array(tokenizer.encode_bytes(text), dtype=_dtype(tokenizer))
    ends = document_ends(text, ids, tokenizer.end_of_text)
    directory = Path(task.directory)
    row = ShardRow(
        index=task.index,
        source=Path(task.range.path).name,
        start=task.range.start,
        end=task.range.end,
        tokens=len(ids),
        documents=len(ends),
        sha256=_write_array(directory / shard_file(task.index), ids),
        ends_sha256=_write_array(directory / ends_file(task.index), ends),
    )
    write_json(_row_file(task), row.model_dump())
    return row


def document_ends(text: bytes, ids: np.ndarray, end_of_text: int) -> np.ndarray:
    """Positions in `ids` after each document's last token, as uint64.

    A document ends with its separator, or with the file if more than white space follows the last one.
    """
    ends = np.flatnonzero(ids == end_of_text) + 1
    if text.rpartition(SEPARATOR)[2].strip():
        ends = np.append(ends, len(ids))
    return ends.astype(np.uint64)


def _write_array(path: Path, array: np.ndarray) -> str:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_bytes(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()
