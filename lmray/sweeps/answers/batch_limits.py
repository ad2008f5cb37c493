"""Where the batches of a sweep end: by memory as the runs found it, and by what comes next."""

import math
from dataclasses import dataclass
from pathlib import Path

from lmray.config import Run, override
from lmray.errors import UsageError
from lmray.runs.run_directory import RunDirectory
from lmray.sweeps.answers.tables import Row
from lmray.sweeps.constraints import memory_refusal
from lmray.sweeps.space import Space


@dataclass(frozen=True)
class AtOnce:
    """How many of a batch's sequences a worker computed at once."""

    computed: int
    """The fewest of all runs at that batch, each in its last record."""
    asked: int
    """As execution.micro_batch has it: all of the worker's share, or that many."""
    share: int
    """The worker's part of the batch."""
    device: str
    """As torch calls it, or cpu; empty where no run says so."""

    @property
    def memory_ended(self) -> bool:
        """Whether fewer than asked fitted."""
        return self.computed < self.asked

    @property
    def too_many(self) -> int:
        """The fewest that were tried and did not fit: half of them, rounded up, did."""
        tried = self.asked
        while (tried + 1) // 2 > self.computed:
            tried = (tried + 1) // 2
        return tried

    def __str__(self) -> str:
        return "all" if self.computed == self.share else f"{self.computed} of {self.share}"


def computed_at_once(rows: tuple[Row, ...], runs: Path) -> AtOnce | None:
    """What the runs of one batch size computed at once; None while none has a record of it."""
    found = []
    for row in rows:
        directory = RunDirectory(runs / row.trial.id)
        last = [r["micro_batch"] for r in directory.records("train") if "micro_batch" in r][-1:]
        if last:
            life = directory.facts["lives"][-1]
            found.append(AtOnce(last[0], *_asked(row.trial.run), life.get("device", "")))
    return min(found, key=lambda each: each.computed, default=None)


def _asked(run: Run) -> tuple[int, int]:
    share = run.sequences_per_step // run.execution.workers
    micro_batch = run.execution.micro_batch
    return (share if micro_batch == "auto" else min(micro_batch, share)), share


def memory_line(sizes: dict[int, AtOnce]) -> str:
    """Where the runs found the memory to end, a sentence; empty where nothing is known."""
    ended = [(batch, each) for batch, each in sorted(sizes.items()) if each.memory_ended]
    if ended:
        batch, each = ended[0]
        return (
            f"The runs found where memory ends: of a batch of {batch} {each.computed} sequences "
            f"were computed at once and {each.too_many} did not fit, so the limit lies from "
            f"{each.computed} to {each.too_many - 1}; more than that is computed in parts."
        )
    if not sizes:
        return ""
    largest = max(each.computed for each in sizes.values())
    text = f"The runs met no end of memory, with up to {largest} sequences at once"
    if any(each.device == "cpu" for each in sizes.values()):
        return f"{text}; on a CPU none would, for the system ends a process that takes too much."
    return f"{text}: it lies beyond."


def end_line(largest: int, before: int, space: Space) -> str:
    """What a batch as much larger again would have met, a sentence."""
    following = largest * largest // before
    key = "data.batch_size"
    unit = space.base.data.batch_size // space.base.sequences_per_step
    steps = override(space.base, {key: largest * unit}).batches.steps
    text = f"budget.tokens has room for {_steps(steps)} of the largest batch tried, {largest},"
    try:
        run = override(space.base, {key: following * unit})
    except UsageError:
        return f"{text} and for none of {following}: it ends the batches."
    text = f"{text} and for {_steps(run.batches.steps)} of {following}"
    if reason := memory_refusal(run, space.memory_gb):
        return f"{text}, which {reason} (--memory-gb)."
    if math.isinf(space.memory_gb):
        return f"{text}."
    return f"{text}, which by accounting fits {space.memory_gb:g} GB: memory does not end them."


def _steps(count: int) -> str:
    return f"{count:,} step{'s' if count != 1 else ''}"
