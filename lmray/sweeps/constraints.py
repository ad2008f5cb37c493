"""Why a combination of a space is not tried: it does not fit the memory, or the user says so."""

from dataclasses import dataclass
from typing import Any

from lmray.accounting import training_memory
from lmray.config import Run
from lmray.machine import GB
from lmray.training.gpu_share import room


@dataclass(frozen=True)
class Refusal:
    """A combination that is not tried."""

    combination: dict[str, Any]
    reason: str
    """In words, for the report."""


def nothing_refused(run: Run) -> str:
    """The rule that lets every run be tried."""
    return ""


def memory_needed(run: Run) -> int:
    """Bytes that a worker holds, by lmray.accounting: AdamW in fp32, an upper estimate."""
    share = run.sequences_per_step // run.execution.workers
    at_once = run.execution.micro_batch
    batch = share if at_once == "auto" else min(at_once, share)
    return training_memory(run.model).total(batch)


PROCESS_BYTES = GB
"""Set aside for what a training's process holds beside its tensors: torch, Ray and their threads,
0.7 to 0.85 GB."""


def process_memory(run: Run) -> int:
    """Bytes that a worker's process holds on a CPU, an upper estimate.

    Half again of `memory_needed`: what accounting does not list took 0.1 to 0.3 of it, and nearly
    half where the vocabulary is large (docs/sweeps.md).
    """
    return PROCESS_BYTES + memory_needed(run) * 3 // 2


def memory_refusal(run: Run, memory_gb: float) -> str:
    """Why a device of `memory_gb` GB, or execution.gpu_share of it, has no room for the run.

    Empty if it has.
    """
    needed, there = memory_needed(run), room(run.execution.gpu_share, memory_gb * GB)
    if needed <= there:
        return ""
    return f"takes {needed / GB:.3g} GB by accounting and there are {there / GB:.3g}"
