"""Encoding a corpus into shards: a plan of byte ranges, one task a shard, and the manifest last.

Shard i is the tokens of byte range i, so it depends on the corpus, the tokenizer and the shard size
and not on who makes it. A task leaves its arrays and then a row, each renamed into place; building
again makes only the shards whose row is missing.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from lmray import remote
from lmray.corpus import SEPARATOR, ByteRange, Corpus, byte_ranges
from lmray.dataset.manifest import (
    Manifest,
    ShardRow,
    ends_file,
    shard_file,
    write_manifest,
)
from lmray.dataset.preflight import check_merges
from lmray.dataset.target import check_tokenizer, is_built, planned, tidy, write_array
from lmray.errors import CorruptionError, PreflightError
from lmray.machine import available_cores
from lmray.progress import Progress, silent
from lmray.storage import (
    canonical_json,
    locked,
    read_json,
    sha256_file,
    write_bytes,
    write_json,
)
from lmray.threads import ordered_map
from lmray.tokenizer import Tokenizer, load_tokenizer, native
from lmray.tokenizer.separator import check_separator

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
    """Carries out tasks in this process, by as many threads as it has cores where kernels encode.

    A thread holds the text and the ids of one shard.
    """
    if not tasks:
        return
    # One for all threads, which would else each load their own.
    tokenizer = _tokenizer_of(tasks[0])
    kernels = native.worth_it(tokenizer.pattern, sum(task.range.size for task in tasks))
    yield from ordered_map(make_shard, tasks, num_threads=available_cores() if kernels else 1)


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

    Raises PreflightError if `directory` holds another corpus or tokenizer, or a split has no text
    or is bytes to the tokenizer in spite of its merges, and UsageError for a tokenizer that does
    not keep documents apart.
    """
    directory = directory.absolute()  # workers may have another working directory
    if remote.exists(directory / "valid" / "manifest.json"):  # what is published last
        remote.refresh(directory)
    loaded = load_tokenizer(tokenizer)
    check_separator(loaded.special_tokens)
    check_tokenizer(directory, loaded)
    own = directory / "tokenizer.json"
    wanted = planned(corpus, loaded, shard_bytes)
    plan = {
        split: _cut(split, files, shard_bytes)
        for split, files in corpus.splits.items()
        if not is_built(directory / split, wanted)
    }
    if not plan and own.exists():
        remote.publish(directory)
        return
    for split, ranges in plan.items():
        check_merges(loaded, ranges, split)
    with locked(directory, f"another process is building {directory}; wait for it or stop it"):
        if not own.exists():
            write_bytes(own, tokenizer.read_bytes())
        for split, ranges in plan.items():
            _build_split(ranges, directory / split, wanted, run_tasks, progress)
        remote.publish(directory)


def _cut(split: str, files: Sequence[Path], shard_bytes: int) -> list[ByteRange]:
    ranges = [part for file in files for part in byte_ranges(file, target_bytes=shard_bytes)]
    if not ranges:
        raise PreflightError(
            f"the {split} split has no text ({', '.join(map(str, files)) or 'no files'}); "
            f"give it files with text"
        )
    return ranges


def _build_split(
    ranges: Sequence[ByteRange],
    target: Path,
    manifest: Manifest,
    run_tasks: RunTasks,
    progress: Progress,
) -> None:
    identity = hashlib.sha256(canonical_json(manifest.model_dump()).encode()).hexdigest()[:12]
    rows_directory = target / f"rows-{identity}"
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
    tidy(target, len(tasks))


def _row_file(task: ShardTask) -> Path:
    return Path(task.rows) / f"shard-{task.index:05d}.json"


def _finished(task: ShardTask) -> ShardRow | None:
    """The row an interrupted build left for `task`, if the arrays beside it are what it says."""
    if not _row_file(task).exists():
        return None
    try:
        row = ShardRow.model_validate(read_json(_row_file(task)))
    except (CorruptionError, ValidationError):
        return None
    arrays = {shard_file(task.index): row.sha256, ends_file(task.index): row.ends_sha256}
    paths = {Path(task.directory) / name: expected for name, expected in arrays.items()}
    whole = all(path.exists() and sha256_file(path) == sha for path, sha in paths.items())
    return row if whole else None


@lru_cache(maxsize=1)
def _tokenizer(path: str, inode: int, changed_ns: int) -> Tokenizer:
    """The tokenizer of a file as it is now: a worker makes many shards, a file may be replaced."""
    return load_tokenizer(path)


def _tokenizer_of(task: ShardTask) -> Tokenizer:
    stat = Path(task.tokenizer).stat()
    return _tokenizer(task.tokenizer, stat.st_ino, stat.st_mtime_ns)


def make_shard(task: ShardTask) -> ShardRow:
    """Encodes one byte range and leaves its two arrays and its row on disk."""
    tokenizer = _tokenizer_of(task)
    text = task.range.read()
    ids = tokenizer.encode_to_numpy(text)
    ends = document_ends(text, ids, tokenizer.end_of_text)
    directory = Path(task.directory)
    row = ShardRow(
        index=task.index,
        source=Path(task.range.path).name,
        start=task.range.start,
        end=task.range.end,
        tokens=len(ids),
        documents=len(ends),
        sha256=write_array(directory / shard_file(task.index), ids),
        ends_sha256=write_array(directory / ends_file(task.index), ends),
    )
    write_json(_row_file(task), row.model_dump())
    return row


def document_ends(text: bytes, ids: np.ndarray, end_of_text: int) -> np.ndarray:
    """Positions in `ids` after each document's last token, as uint64.

    A document ends with its separator; the last one of a file may also end with the file, if it is
    more than white space.
    """
    ends = np.flatnonzero(ids == end_of_text) + 1
    last = text.rfind(SEPARATOR)
    if text[last + len(SEPARATOR) if last >= 0 else 0 :].strip():
        ends = np.append(ends, len(ids))
    return ends.astype(np.uint64)
