"""Ray Data over byte ranges: tasks receive (path, start, end), return counts or a manifest row.

Text and tokens never pass through Ray's object store, only pre-token counts do.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from lmray.corpus import ByteRange
from lmray.dataset import ShardRow, ShardTask, make_shard
from lmray.machine import peak_memory
from lmray.progress import Progress
from lmray.tokenizer.corpus_counts import PHASE, CountRanges, CountRule, Effort, count_range
from lmray.tokenizer.counting import merge_counts, pretoken_counter
from lmray.tokenizer.counts import PretokenCounts


def count_ranges(num_cpus: int, *, most_tables: int = 64, fan_in: int = 8) -> CountRanges:
    """The lmray.tokenizer.CountRanges that counts on the cluster, `num_cpus` tasks at a time.

    A task returns the counts of one range as one row of arrays. As long as there are more than
    `most_tables` of them, further tasks add up `fan_in` each; the rest is added up here.
    """

    def count_all(
        ranges: Sequence[ByteRange], rule: CountRule, progress: Progress
    ) -> tuple[PretokenCounts, Effort]:
        def count(batch: dict[str, np.ndarray]) -> pa.Table:
            (part,) = _ranges(batch)
            counter = pretoken_counter(
                rule.pattern, rule.special_tokens, num_bytes=part.size, memory=rule.memory
            )
            effort = count_range(counter, part, rule.sample)
            return _row(counter.counts(), replace(effort, worker_peak_bytes=peak_memory()))

        def add(table: pa.Table) -> pa.Table:
            begun = time.perf_counter()
            counted = [_counted(row) for row in table.to_pylist()]
            total = merge_counts((counts for counts, _ in counted), memory=rule.memory)
            reduced = Effort(
                reduce_seconds=time.perf_counter() - begun, worker_peak_bytes=peak_memory()
            )
            return _row(total, sum((effort for _, effort in counted), reduced))

        size = sum(part.size for part in ranges)
        steps: list[tuple[Any, int]] = [(count, 1)]
        tables = len(ranges)
        while tables > most_tables:
            steps.append((add, fan_in))
            tables = -(-tables // fan_in)
        effort = Effort()

        def arriving() -> Iterator[PretokenCounts]:
            nonlocal effort
            for table in _run([asdict(part) for part in ranges], steps, num_cpus):
                for row in table.to_pylist():
                    counts, more = _counted(row)
                    effort += more
                    progress(PHASE, effort.read_bytes, size, "bytes")
                    yield counts

        progress(PHASE, 0, size, "bytes")
        return merge_counts(arriving(), memory=rule.memory), effort

    return count_all


def _row(counts: PretokenCounts, effort: Effort) -> pa.Table:
    arrays = {"data": counts.data, "ends": counts.ends, "counts": counts.counts}
    row = {name: array.tobytes() for name, array in arrays.items()} | asdict(effort)
    schema = [(name, pa.large_binary()) for name in arrays]
    schema += [(f.name, pa.int64() if f.type is int else pa.float64()) for f in fields(effort)]
    return pa.Table.from_pylist([row], schema=pa.schema(schema))


def _counted(row: dict[str, Any]) -> tuple[PretokenCounts, Effort]:
    counts = PretokenCounts(
        data=np.frombuffer(row.pop("data"), dtype=np.uint8),
        ends=np.frombuffer(row.pop("ends"), dtype=np.int64),
        counts=np.frombuffer(row.pop("counts"), dtype=np.int64),
    )
    return counts, Effort(**row)


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
        for table in _run(items, [(make, 1)], num_cpus) if items else ():
            yield from (ShardRow.model_validate(row) for row in table.to_pylist())

    return run


def _ranges(batch: dict[str, np.ndarray]) -> list[ByteRange]:
    columns = zip(batch["path"], batch["start"], batch["end"], strict=True)
    return [ByteRange(str(path), int(start), int(end)) for path, start, end in columns]


def _run(
    items: list[dict[str, Any]], steps: Sequence[tuple[Any, int]], num_cpus: int
) -> Iterator[pa.Table]:
    """The tables that come out of the last step, as they come.

    A step is a function and how many rows it is given at a time; of the first, a row is an item.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    for number, (function, rows) in enumerate(steps):
        dataset = dataset.map_batches(
            function,
            batch_size=rows,
            batch_format="numpy" if number == 0 else "pyarrow",
            concurrency=min(num_cpus, len(items)),
            num_cpus=1,
        )
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
