"""What a run computes on: the device, the number of CPU threads, algorithms that repeat."""

import gc
import os
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


def device_at_hand(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device for a run that is trained already: a CPU where the one it asked for is not."""
    return resolve_device("cpu" if name == "cpu" else "auto")


def device_name(device: torch.device) -> str:
    """What torch calls a GPU; "cpu" for a CPU, of which torch knows no name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def resolve_threads(run: Run) -> int:
    """The CPU threads that execution.threads stands for."""
    if run.execution.threads != "auto":
        return run.execution.threads
    return max(1, available_cores() // run.execution.workers)


_REPEATABLE = (":4096:8", ":16:8")
"""Workspaces with which cuBLAS gives the same bits every time (its manual, section 2.1.4)."""


def set_determinism(deterministic: bool) -> None:
    """Chooses between algorithms that give the same bits every time and the fastest ones.

    For the whole process. cuBLAS reads its workspace's size, which is set here, once, when it
    first multiplies. What has no deterministic algorithm raises RuntimeError when it is called.

    Raises PreflightError if CUBLAS_WORKSPACE_CONFIG is set to another size.
    """
    if deterministic:
        workspace = os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", _REPEATABLE[0])
        if workspace not in _REPEATABLE:
            raise PreflightError(
                f"CUBLAS_WORKSPACE_CONFIG={workspace}, with which cuBLAS is not deterministic; "
                f"unset it, or set it to {' or '.join(_REPEATABLE)}"
            )
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = False  # it would choose by the time of day


def give_memory_back() -> None:
    """Frees what only cycles hold, and gives a GPU the blocks that torch keeps for later."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
