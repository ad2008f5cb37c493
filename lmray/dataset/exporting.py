"""Token datasets as files of other programs: nanoGPT's and llm.c's .bin, and Parquet."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from lmray.dataset.token_files import LLMC_UINT16, LLMC_UINT32
from lmray.dataset.tokens import Splits, TokenDataset
from lmray.errors import UsageError
from lmray.progress import Progress, silent
from lmray.storage import atomic_writer

LLMC_TOKENS = 100_000_000
"""Ids in one of llm.c's files at most, as its own scripts have it; its header counts to 2**31."""

_UINT16_IDS = 1 << 16
_BLOCK = 1 << 20


def export(splits: Splits, folder: Path, *, format: str, progress: Progress = silent) -> list[Path]:
    """Writes both splits to files in `folder`, which it returns.

    Raises UsageError if the format cannot express them or a file of that name is there already.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown dataset format {format!r}; choose {', '.join(FORMATS)}")
    return FORMATS[format](splits, folder, progress)


def _nanogpt(splits: Splits, folder: Path, progress: Progress) -> list[Path]:
    if splits.tokenizer.vocab_size > _UINT16_IDS:
        raise UsageError(
            f"nanoGPT reads ids as uint16, which {splits.tokenizer.vocab_size:,} ids do not fit; "
            f"use the llmc or parquet format"
        )
    written = _free(folder, "train.bin", "val.bin")
    for path, split in zip(written, (splits.train, splits.valid), strict=True):
        with atomic_writer(path) as file:
            _write_ids(file, split, 0, len(split), "<u2", progress)
    return written


def _llmc(splits: Splits, folder: Path, progress: Progress) -> list[Path]:
    kind = LLMC_UINT16 if splits.tokenizer.vocab_size <= _UINT16_IDS else LLMC_UINT32
    # llm.c reads whatever a wildcard finds: older files of a longer dataset would be read too.
    _free(folder, "train_*.bin", "val_*.bin")
    written = []
    for name, split in (("train", splits.train), ("val", splits.valid)):
        # Even sizes: llm.c refuses a file of less than a batch.
        number = max(1, -(-len(split) // LLMC_TOKENS))
        edges = [len(split) * place // number for place in range(number + 1)]
        for place in range(number):
            path = folder / f"{name}_{place:06d}.bin"
            with atomic_writer(path) as file:
                file.write(kind.header(edges[place + 1] - edges[place]))
                _write_ids(file, split, edges[place], edges[place + 1], kind.dtype, progress)
            written.append(path)
    return written


def _parquet(splits: Splits, folder: Path, progress: Progress) -> list[Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = _free(folder, "train.parquet", "valid.parquet")
    # 32 bits whatever the vocabulary: what torch and `datasets` take ids in.
    schema = pa.schema([("input_ids", pa.list_(pa.int32()))])
    for path, split in zip(written, (splits.train, splits.valid), strict=True):
        with atomic_writer(path) as file, pq.ParquetWriter(file, schema) as writer:
            for edges in _document_blocks(split):
                ids = split.read(edges[0], edges[-1]).astype(np.int32)
                offsets = pa.array(np.array(edges) - edges[0], pa.int32())
                rows = pa.ListArray.from_arrays(offsets, pa.array(ids))
                writer.write_table(pa.table([rows], schema=schema))
                _report(progress, split, edges[-1])
            _report(progress, split, len(split))
    return written


FORMATS: dict[str, Callable[[Splits, Path, Progress], list[Path]]] = {
    "nanogpt": _nanogpt,
    "llmc": _llmc,
    "parquet": _parquet,
}
"""What `export` writes."""


def _free(folder: Path, *patterns: str) -> list[Path]:
    for pattern in patterns:
        for path in folder.glob(pattern):
            raise UsageError(f"{path} is there already; choose another folder or delete it")
    return [folder / pattern for pattern in patterns]


def _document_blocks(split: TokenDataset) -> Iterator[list[int]]:
    """Where documents begin and the last one ends, for about a million tokens at a time."""
    ends = split.document_ends
    start, place = 0, 0
    while place < len(ends):
        stop = max(place + 1, int(np.searchsorted(ends, np.uint64(start + _BLOCK), side="right")))
        yield [start, *ends[place:stop].tolist()]
        start, place = int(ends[stop - 1]), stop


def _write_ids(
    file: IO[bytes], split: TokenDataset, start: int, stop: int, dtype: str, progress: Progress
) -> None:
    for position in range(start, stop, _BLOCK):
        block_stop = min(position + _BLOCK, stop)
        file.write(split.read(position, block_stop).astype(dtype).tobytes())
        _report(progress, split, block_stop)


def _report(progress: Progress, split: TokenDataset, done: int) -> None:
    progress(f"export {split.directory.name}", done, len(split), "tokens")
