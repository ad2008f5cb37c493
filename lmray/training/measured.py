"""What steps measured: kept on the device until it is asked for, so that nothing waits for it."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

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


class Window:
    """The steps since the last record."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._pending: list[Taken] = []
        self._measured: list[Measured] = []

    def add(self, taken: Taken) -> None:
        """Notes a step; waits for nothing."""
        self._pending.append(taken)

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
        """The facts of the last step measured and the share of clipped ones; begins anew."""
        last = self._measured[-1]
        clipped = sum(step.clipped for step in self._measured) / len(self._measured)
        self._measured.clear()
        return {
            "loss": finite(last.loss),
            "lr": last.lr,
            "gradient_norm": finite(last.gradient_norm),
            "clipped_share": clipped,
        }


def finite(value: float) -> float | None:
    """The value, or None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
