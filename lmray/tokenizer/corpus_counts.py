"""Counting a corpus: ranges of its text in any order, by threads here or by tasks on a cluster."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmray.corpus import ByteRange
from lmray.corpus.sampling import DocumentSample
from lmray.machine import available_cores
from lmray.progress import Progress
from lmray.threads import ordered_map
from lmray.tokenizer import native
from lmray.tokenizer.counting import PretokenCounter, merge_counts, pretoken_counter
from lmray.tokenizer.counts import PretokenCounts

PHASE = "count pre-tokens"


@dataclass(frozen=True)
class CountRule:
    """What is counted, and within how much memory."""

    pattern: str
    special_tokens: tuple[str, ...]
    sample: DocumentSample
    memory: int
    """Bytes that the counts may take in a process."""


@dataclass(frozen=True)
class Effort:
    """What counting took; seconds of several threads or tasks are added up."""

    read_bytes: int = 0
    counted_bytes: int = 0
    """Of the documents that are in the sample."""
    read_seconds: float = 0.0
    count_seconds: float = 0.0
    reduce_seconds: float = 0.0
    worker_peak_bytes: int = 0
    """Most memory that a worker process had; 0 where this process counts itself."""

    def __add__(self, other: "Effort") -> "Effort":
        """Sums; the greater of the peaks."""
        return Effort(
            self.read_bytes + other.read_bytes,
            self.counted_bytes + other.counted_bytes,
            self.read_seconds + other.read_seconds,
            self.count_seconds + other.count_seconds,
            self.reduce_seconds + other.reduce_seconds,
            max(self.worker_peak_bytes, other.worker_peak_bytes),
        )


CountRanges = Callable[[Sequence[ByteRange], CountRule, Progress], tuple[PretokenCounts, Effort]]
"""Counts all ranges, here or on a cluster, and says what it took."""


def count_range(counter: PretokenCounter, part: ByteRange, sample: DocumentSample) -> Effort:
    """Adds the pre-tokens of the sampled documents of one range to `counter`."""
    begun = time.perf_counter()
    text = sample.of(part.read())
    read = time.perf_counter()
    counter.add(text)
    return Effort(
        read_bytes=part.size,
        counted_bytes=len(text),
        read_seconds=read - begun,
        count_seconds=time.perf_counter() - read,
    )


def count_here(
    ranges: Sequence[ByteRange], rule: CountRule, progress: Progress
) -> tuple[PretokenCounts, Effort]:
    """Counts in this process, with a thread for each core where there are kernels."""
    size = sum(part.size for part in ranges)
    threads = 1
    if native.worth_it(rule.pattern, size):
        # Named, for on a machine's first time it takes some fifteen seconds.
        progress("token kernels", 0, 1, "set, compiled once a machine")
        native.rules(rule.pattern)
        progress("token kernels", 1, 1, "set, compiled once a machine")
        threads = min(available_cores(), len(ranges))
    # One share of the memory is for the sum.
    memory = rule.memory // (threads + 1) if threads > 1 else rule.memory
    own = threading.local()
    counters: list[PretokenCounter] = []

    def count(part: ByteRange) -> Effort:
        if not hasattr(own, "counter"):
            own.counter = pretoken_counter(
                rule.pattern, rule.special_tokens, num_bytes=part.size, memory=memory
            )
            counters.append(own.counter)
        return count_range(own.counter, part, rule.sample)

    effort = Effort()
    progress(PHASE, 0, size, "bytes")
    for one in ordered_map(count, ranges, num_threads=threads):
        effort += one
        progress(PHASE, effort.read_bytes, size, "bytes")
    begun = time.perf_counter()
    total = merge_counts((counter.counts() for counter in counters), memory=memory)
    return total, effort + Effort(reduce_seconds=time.perf_counter() - begun)
