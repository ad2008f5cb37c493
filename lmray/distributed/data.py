"""Ray Data over byte ranges: tasks receive (path, start, end), return counts or a manifest row.

Text and tokens never pass through Ray's object store, only pre-token counts do.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from lmray.corpus import ByteRange
from lmray.dataset import ShardRow, ShardTask, make_shard
from lmray.distributed.gauges import count_shard
from lmray.distributed.shared_root import not_seen, require_shared
from lmray.errors import PreflightError
from lmray.machine import peak_memory
from lmray.progress import Progress
from lmray.tokenizer.corpus_counts import PHASE, CountRanges, CountRule, Effort, count_range
from lmray.tokenizer.counting import merge_counts, pretoken_counter
from lmray.tokenizer.counts import PretokenCounts

_TASKS_PER_CPU, _MOST_ITEMS = 4, 16

_REFUSAL = re.compile(rf"^{PreflightError.__module__}\.PreflightError: (.+)$", re.MULTILINE)


def count_ranges(num_cpus: int, *, most_tables: int = 64, fan_in: int = 8) -> CountRanges:
    """The lmray.tokenizer.CountRanges that counts on the cluster, `num_cpus` tasks at a time.

    A task returns the counts of its ranges as one row of arrays. As long as there are more than
    `most_tables` rows, further tasks add up `fan_in` each; the rest is added up here.
    """

    def count_all(
        ranges: Sequence[ByteRange], rule: CountRule, progress: Progress
    ) -> tuple[PretokenCounts, Effort]:
        def count(items: pa.Table) -> pa.Table:
            parts = [ByteRange(**item) for item in items.to_pylist()]
            _require_here(parts)
            counter = pretoken_counter(
                rule.pattern,
                rule.special_tokens,
                num_bytes=sum(part.size for part in parts),
                memory=rule.memory,
            )
            effort = Effort()
            for part in parts:
                effort += count_range(counter, part, rule.sample)
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
        adding = []
        tables = _num_tasks(len(ranges), num_cpus)
        while tables > most_tables:
            adding.append(add)
            tables = -(-tables // fan_in)
        effort = Effort()

        def arriving() -> Iterator[PretokenCounts]:
            nonlocal effort
            dataset = _mapped([asdict(part) for part in ranges], count, num_cpus)
            for function in adding:
                dataset = dataset.map_batches(
                    function, batch_size=fan_in, batch_format="pyarrow", num_cpus=1
                )
            for table in _tables(dataset):
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

    def make(items: pa.Table) -> pa.Table:
        tasks = [
            ShardTask(range=ByteRange(**item.pop("range")), **item) for item in items.to_pylist()
        ]
        _require_here([task.range for task in tasks])
        rows = [make_shard(task).model_dump() for task in tasks]
        return pa.Table.from_pylist(rows)

    def made(tasks: Sequence[ShardTask]) -> Iterator[ShardRow]:
        if len(tasks) <= 1:
            yield from map(make_shard, tasks)  # sooner done than a pipeline starts
            return
        for table in _tables(_mapped([asdict(task) for task in tasks], make, num_cpus)):
            yield from map(ShardRow.model_validate, table.to_pylist())

    def run(tasks: Sequence[ShardTask]) -> Iterator[ShardRow]:
        for row in made(tasks):
            split = Path(tasks[0].directory)
            count_shard(row, dataset=split.parent.name, split=split.name)
            yield row

    return run


def _require_here(parts: Sequence[ByteRange]) -> None:
    """Refuses to work on a node that lacks the root or the text, as one that joins later may."""
    require_shared()
    for path in {part.path for part in parts}:
        if not Path(path).exists():
            raise not_seen(path, ray.util.get_node_ip_address())


def _num_tasks(num_items: int, num_cpus: int) -> int:
    """Tasks for so many items: few, as each costs Ray Data a fifth of a second, but several a CPU.

    What a lost worker had done of a task is done again, so no task has many items.
    """
    return min(num_items, max(_TASKS_PER_CPU * num_cpus, -(-num_items // _MOST_ITEMS)))


def _mapped(
    items: list[dict[str, Any]], function: Callable[[pa.Table], pa.Table], num_cpus: int
) -> ray.data.Dataset:
    """What `function` makes of tables of items, one for each task."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    tasks = _num_tasks(len(items), num_cpus)
    dataset = ray.data.from_items(items, override_num_blocks=tasks)
    return dataset.map_batches(
        function,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.TaskPoolStrategy(size=min(num_cpus, tasks)),
        num_cpus=1,
    )


def _tables(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    """The tables of a dataset as they are made."""
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except ray.exceptions.RayTaskError as error:
        # Of what a task raised Ray Data brings only the text (2.60).
        refusal = _REFUSAL.search(str(error))
        if refusal:
            raise PreflightError(refusal[1]) from None
        raise
