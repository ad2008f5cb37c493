"""Batches that a device computes in parts, and parts that become smaller where memory ends."""

import logging
import math
from collections.abc import Callable
from typing import Literal, TypeVar

import torch

from lmray.training.device import give_memory_back

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CPU_ALLOCATOR = "DefaultCPUAllocator: can't allocate memory"
"""How torch says that a CPU's memory has run out, in an error without a class of its own."""


def parts(sequences: int, micro_batch: int) -> list[slice]:
    """The rows of a batch in order, `micro_batch` at a time; the last part may be smaller."""
    return [
        slice(start, min(start + micro_batch, sequences))
        for start in range(0, sequences, micro_batch)
    ]


def fitting(compute: Callable[[int], T], micro_batch: int) -> tuple[T, int]:
    """compute(micro_batch) and the micro-batch it fit in: halved for as long as memory ran out.

    `compute` begins anew each time. Raises torch.OutOfMemoryError, or MemoryError, if a single
    sequence does not fit.
    """
    while True:
        try:
            return compute(micro_batch), micro_batch
        except (torch.OutOfMemoryError, MemoryError):
            if micro_batch == 1:
                raise
        except RuntimeError as error:
            if _CPU_ALLOCATOR not in str(error):
                raise
            if micro_batch == 1:
                raise torch.OutOfMemoryError(str(error)) from error
        # Not in the except clause: there the error still holds the frames and their tensors.
        micro_batch = (micro_batch + 1) // 2
        logger.warning("out of memory; going on with micro-batches of %d", micro_batch)
        give_memory_back()


class Room:
    """Sequences that may be computed at once: as asked for, fewer once memory has run out."""

    def __init__(self, asked: int | Literal["auto"]) -> None:
        """`asked` is execution.micro_batch."""
        self._most: float = math.inf if asked == "auto" else asked

    def at_once(self, sequences: int) -> int:
        """How many of so many."""
        return int(min(sequences, self._most))

    def fitting(self, compute: Callable[[int], T], sequences: int) -> T:
        """As `fitting` from at_once(sequences); what fits is kept to from then on."""
        tried = self.at_once(sequences)
        result, fits = fitting(compute, tried)
        if fits < tried:
            self._most = fits
        return result
