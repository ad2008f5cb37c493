"""What a run computes on: the device and the number of CPU threads."""

from typing import Literal

import torch

from lmray.config import Run
from lmray.errors import PreflightError
from lmray.machine import available_cores


def resolve_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that execution.device stands for.

    Raises PreflightError if cuda is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise PreflightError(
            "execution.device=cuda, but torch sees no CUDA device; set execution.device=cpu"
        )
    return torch.device(
        "cuda" if name == "cuda" or (torch.cuda.is_available() and name == "auto") else "cpu"
    )


def device_name(device: torch.device) -> str:
    """What torch calls a GPU; "cpu" for a CPU, of which torch knows no name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def resolve_threads(run: Run) -> int:
    """The CPU threads that execution.threads stands for."""
    if run.execution.threads != "auto":
        return run.execution.threads
    return max(1, available_cores() // run.execution.workers)
