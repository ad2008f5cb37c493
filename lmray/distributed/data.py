"""Ray Data over byte ranges: tasks receive (path, start, end), return counts or a manifest row.

Text and tokens never pass through Ray's object store, only pre-token counts do.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from lmray.corpus import ByteRange
from lmray.dataset import ShardRow, ShardTask, make_shard
from lmray.progress import Progress, silent
from lmray.tokenizer import count_pretokens


def count_ranges(
    ranges: Sequence[ByteRange],
    *,
    pattern: str,
    special_tokens: Sequence[str],
    num_cpus: int,
    progress: Progress = silent,
) -> Counter[bytes]:
    """Counts the pre-tokens of all ranges, each counted by one task, `num_cpus` at a time."""

    def count(batch: dict[str, np.ndarray]) -> pa.Table:
        (part,) = _ranges(batch)
        counts = count_pretokens(part.read(), pattern=pattern, special_tokens=special_tokens)
        return pa.table(
            {
                "pretoken": pa.array(counts.keys(), pa.binary()),
                "count": pa.array(counts.values(), pa.int64()),
                "bytes": pa.array([part.size] + [0] * (len(counts) - 1), pa.int64()),
            }
        )

    total: Counter[bytes] = Counter()
    done, size = 0, sum(part.size for part in ranges)
    items = [asdict(part) for part in ranges]
    progress("count pre-tokens", 0, size, "bytes")
    for table in _run(items, count, num_cpus):
        keys, values = table["pretoken"].to_pylist(), table["count"].to_pylist()
        total.update(dict(zip(keys, values, strict=True)))
        done += sum(table["bytes"].to_pylist())
        progress("count pre-tokens", done, size, "bytes")
    return total


def run_tasks(num_cpus: int) -> Callable[[Sequence[ShardTask]], Iterator[ShardRow]]:
    """The lmray.dataset.RunTasks that encodes shards on the cluster, `num_cpus` at a time."""

    def make(batch: dict[str, np.ndarray]) -> pa.Table:
        (part,) = _ranges(batch)
        row = make_shard(
            ShardTask(
                index=int(batch["index"][0]),
                range=part,
                tokenizer=str(batch["tokenizer"][0]),
                directory=str(batch["directory"][0]),
                rows=str(batch["rows"][0]),
            )
        )
        return pa.Table.from_pylist([row.model_dump()])

    def run(tasks: Sequence[ShardTask]) -> Iterator[ShardRow]:
        items = [
            {
                **asdict(task.range),
                "index": task.index,
                "tokenizer": task.tokenizer,
                "directory": task.directory,
                "rows": task.rows,
            }
            for task in tasks
        ]
        for table in _run(items, make, num_cpus) if items else ():
            yield from (ShardRow.model_validate(row) for row in table.to_pylist())

    return run


def _ranges(batch: dict[str, np.ndarray]) -> list[ByteRange]:
    columns = zip(batch["path"], batch["start"], batch["end"], strict=True)
    return [ByteRange(str(path), int(start), int(end)) for path, start, end in columns]


def _run(items: list[dict[str, Any]], function: Any, num_cpus: int) -> Iterator[pa.Table]:
    """The tables that `function` returns for each item, as they come."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        function, batch_size=1, concurrency=min(num_cpus, len(items)), num_cpus=1
    )
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
