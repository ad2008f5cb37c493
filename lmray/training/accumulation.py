"""Batches that a device computes in parts, and parts that become smaller where memory ends."""

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)

T = TypeVar("T")


def parts(sequences: int, micro_batch: int) -> list[slice]:
    """The rows of a batch in order, `micro_batch` at a time; the last part may be smaller."""
    return [
        slice(start, min(start + micro_batch, sequences))
        for start in range(0, sequences, micro_batch)
    ]


def fitting(compute: Callable[[int], T], micro_batch: int) -> tuple[T, int]:
    """compute(micro_batch) and the micro-batch it fit in: halved for as long as memory ran out.

    `compute` begins anew each time. Raises torch.OutOfMemoryError if a single sequence does not
    fit.
    """
    while True:
        try:
            return compute(micro_batch), micro_batch
        except torch.OutOfMemoryError:
            if micro_batch == 1:
                raise
        # Not in the except clause: there the error still holds the frames and their tensors.
        micro_batch = (micro_batch + 1) // 2
        logger.warning("out of memory; going on with micro-batches of %d", micro_batch)
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
