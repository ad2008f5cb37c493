"""What steps measured: kept on the device until it is asked for, so that nothing waits for it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lmray import machine
from lmray.config import Run

DIVERGED_AT = 2.0
"""A loss above this many times ln V, the loss of guessing uniformly, counts as diverged."""


@dataclass(frozen=True)
class Taken:
    """What a step measured, where it was computed."""

    step: int
    """Optimizer steps taken with this one."""
    lr: float
    loss_and_norm: Float[Tensor, "2"]
    """Loss of the global batch, and the gradient's norm before it was clipped."""
    data_wait_s: float
    """Seconds until the batch was there."""
    update_ratio: Float[Tensor, ""] = field(default_factory=lambda: torch.tensor(math.nan))
    """See relative_change; NaN where it was not computed."""
    max_attention_logit: Float[Tensor, ""] = field(default_factory=lambda: torch.tensor(math.nan))
    """The largest of all layers' attention, of a few sequences; NaN where it was not computed."""


@dataclass(frozen=True)
class Measured:
    """A step's numbers, on the host."""

    step: int
    lr: float
    loss: float
    gradient_norm: float
    clipped: bool
    """Whether the norm was above optim.clip_norm."""
    diverged: bool
    """Whether loss or norm is not finite, or the loss far above that of a uniform guess."""


def measure(taken: list[Taken], run: Run) -> list[Measured]:
    """Fetches the numbers of all steps at once; waits for the device."""
    bound = DIVERGED_AT * math.log(run.model.vocab_size)
    limit = math.inf if run.optim.clip_norm == "none" else run.optim.clip_norm
    values = torch.stack([each.loss_and_norm for each in taken]).tolist() if taken else []
    return [
        # Written so that NaN, which compares false with everything, counts as diverged.
        Measured(
            each.step, each.lr, loss, norm, norm > limit, not (loss <= bound and norm < math.inf)
        )
        for each, (loss, norm) in zip(taken, values, strict=True)
    ]


def relative_change(before: Iterable[Tensor], after: Iterable[Tensor]) -> Float[Tensor, ""]:
    """The norm of an update over that of the weights before it, all of them as one vector."""
    before = list(before)
    changes = torch._foreach_sub([weight.detach() for weight in after], before)
    moved, size = (
        torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
        for tensors in (changes, before)
    )
    return moved / size


def forget_peak_memory(device: torch.device) -> Literal["run", "process"]:
    """Lets the peak begin anew with a run; says whose it is from now on.

    Where the system cannot, it is the process's, and an earlier run's in it may be counted.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return "run"
    return "run" if machine.forget_peak_memory() else "process"


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory so far: what torch had of a GPU's, or the process of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return machine.peak_memory()


class Window:
    """The steps since the last record."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._pending: list[Taken] = []
        self._measured: list[Measured] = []
        self._data_wait_s = 0.0
        self._update_ratio = self._max_attention_logit = torch.tensor(math.nan)

    def add(self, taken: Taken) -> None:
        """Notes a step; waits for nothing."""
        self._pending.append(taken)
        self._data_wait_s += taken.data_wait_s
        self._update_ratio = taken.update_ratio
        self._max_attention_logit = taken.max_attention_logit

    def first_diverged(self) -> Measured | None:
        """The first step that diverged, None if none did; waits for the device."""
        fresh = measure(self._pending, self._run)
        self._pending.clear()
        for count, step in enumerate(fresh, 1):
            if step.diverged:
                self._measured += fresh[:count]
                return step
        self._measured += fresh
        return None

    def close(self) -> dict[str, Any]:
        """The facts of the last step, the share of clipped ones, their waits; begins anew."""
        last = self._measured[-1]
        clipped = sum(step.clipped for step in self._measured) / len(self._measured)
        waited, self._data_wait_s = self._data_wait_s, 0.0
        self._measured.clear()
        return {
            "loss": finite(last.loss),
            "lr": last.lr,
            "gradient_norm": finite(last.gradient_norm),
            "clipped_share": clipped,
            "update_ratio": finite(self._update_ratio.item()),
            "max_attention_logit": finite(self._max_attention_logit.item()),
            "data_wait_s": waited,
        }


def finite(value: float) -> float | None:
    """The value, or None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
