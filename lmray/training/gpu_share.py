"""Several trainings on one GPU: how many fit, and that none takes the memory of another.

A process gets its share of the memory and no more: where that ends, so does its own micro-batch,
and not a neighbour's training.
"""

import torch

from lmray.config import Execution
from lmray.errors import PreflightError
from lmray.machine import GB
from lmray.training.device import resolve_device

PARTS = 10_000
"""Of a GPU; Ray counts in ten-thousandths and drops what is less."""

CONTEXT_BYTES = 1 << 30
"""Set aside in a share for what torch's allocator does not count: CUDA's context, kernels and
libraries of a process, some hundred MB."""


def parts(share: float) -> int:
    """The share in ten-thousandths of a GPU, rounded down: 1/3 is 3333, so that three fit."""
    return int(round(share * PARTS, 6))  # 0.29 * 10,000 is a little less than 2,900


def trials_per_gpu(share: float) -> int:
    """Trials of that share which one GPU has room for."""
    return PARTS // parts(share)


def room(share: float, device_bytes: float) -> float:
    """Bytes that torch may hold within a share of a GPU's memory; all of it for the whole GPU."""
    whole = parts(share) == PARTS
    return device_bytes if whole else device_bytes * parts(share) / PARTS - CONTEXT_BYTES


def keep_to_share(execution: Execution) -> None:
    """From now on torch runs out of memory at this process's share of the GPU; a CPU's has no end.

    Raises PreflightError if CUDA itself takes all of the share.
    """
    device = resolve_device(execution.device)
    if device.type != "cuda":
        return
    total = torch.cuda.get_device_properties(device).total_memory
    fits = room(execution.gpu_share, total)
    if fits <= 0:
        raise PreflightError(
            f"execution.gpu_share={execution.gpu_share:g} of a GPU of {total / GB:.3g} GB leaves "
            f"nothing beside the {CONTEXT_BYTES / GB:.3g} GB set aside for CUDA; raise it"
        )
    # Of the current device, which "cuda" is: torch takes here no device without an index.
    torch.cuda.set_per_process_memory_fraction(fits / total)


def check_share(execution: Execution, needed: int) -> None:
    """As `require_room` of this machine's GPU; of one that is not there, or not shared, nothing."""
    if execution.device != "cpu" and torch.cuda.is_available():
        total = torch.cuda.get_device_properties("cuda").total_memory
        require_room(execution.gpu_share, needed, total)


def require_room(share: float, needed: int, device_bytes: int) -> None:
    """Refuses a share of a GPU's memory that does not hold `needed` bytes of torch's.

    Raises PreflightError naming the largest number of trials that fit the GPU. A whole GPU is not
    refused: where its memory ends, micro-batches become smaller.
    """
    fits = room(share, device_bytes)
    if parts(share) == PARTS or needed <= fits:
        return
    most = max(1, device_bytes // (needed + CONTEXT_BYTES))
    while most > 1 and room(PARTS // most / PARTS, device_bytes) < needed:
        most -= 1
    raise PreflightError(
        f"a trial takes {needed / GB:.3g} GB of GPU memory and execution.gpu_share={share:g} of "
        f"{device_bytes / GB:.3g} GB has room for {max(0.0, fits) / GB:.3g} beside CUDA's context; "
        f"at most {most} fit: set execution.gpu_share={PARTS // most / PARTS:g}, or lower "
        f"execution.micro_batch, or say --yes and it is lowered where memory ends"
    )
