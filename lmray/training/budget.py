"""How far a run is through its budget, and which step is its last."""

import math
from collections import deque
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from lmray.config import Run
from lmray.errors import PreflightError
from lmray.model import TransformerLM

_MARGIN = 1.2
"""The last evaluations and the checkpoint are held to take this many times what they took."""


def flops_per_step(run: Run) -> int:
    """Floating-point operations of one optimizer step's matrix products.

    Those of the forward pass, counted on a model without storage, thrice: a backward pass has two
    products for each. Attention counts as if it were not causal, as is usual.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        # Spelled out, its products are seen on every device.
        model = TransformerLM.from_config(run.model.model_copy(update={"attention": "math"}))
        model(torch.zeros(1, run.model.context_length, dtype=torch.int64))
    return 3 * counter.get_total_flops() * (run.tokens_per_step // run.model.context_length)


class Meter:
    """Measures a run against the limits of its budget; the one nearest to its end counts."""

    def __init__(self, run: Run) -> None:
        """Raises PreflightError if budget.flops pays for no step."""
        self.steps = run.steps
        """Optimizer steps that all limits but that of time pay for."""
        if run.budget.flops != "none":
            each = flops_per_step(run)
            self.steps = min(self.steps, int(run.budget.flops // each))
            if self.steps < 1:
                raise PreflightError(
                    f"budget.flops={run.budget.flops:g} has no room for one step of {each:g} "
                    f"operations; raise the budget or lower the batch"
                )
        self.seconds = math.inf if run.budget.seconds == "none" else run.budget.seconds
        """Wall time of all lives, to the end of the last evaluation and checkpoint."""
        self._ending = 0.0
        self._endings: deque[float] = deque(maxlen=8)
        self._furthest = (0, 1)
        self._recent: deque[float] = deque(maxlen=16)

    @property
    def timed(self) -> bool:
        """Whether time is among the limits."""
        return self.seconds < math.inf

    def reserve(self, ending: float) -> None:
        """Keeps `ending` seconds, with a margin, for the last evaluations and the checkpoint.

        It is a new estimate; the median of the last ones counts, for a machine may stall once.

        Raises PreflightError if the first one leaves no time.
        """
        self._endings.append(_MARGIN * ending)
        self._ending = median(self._endings)
        if len(self._endings) == 1 and self._ending >= self.seconds:
            raise PreflightError(
                f"budget.seconds={self.seconds:g} leaves no time to train: the last evaluations "
                f"and the checkpoint take about {self._ending:.3g} s; raise it well beyond"
            )

    def took(self, seconds: float) -> None:
        """Notes how long a step was; the median of the last ones is what the next will take."""
        self._recent.append(seconds)

    def position(self, step: int, seconds: float) -> tuple[int, int]:
        """(done, total) after the update that follows `step` earlier ones, at `seconds`.

        In steps or in milliseconds, of the limit that is nearest to its end.
        """
        by_steps = (step + 1, self.steps)
        if not self.timed:
            return by_steps
        total = max(1, round(1000 * (self.seconds - self._ending)))
        after = min(max(1, round(1000 * (seconds + self._next()))), total)
        furthest = max(by_steps, (after, total), self._furthest, key=lambda pair: pair[0] / pair[1])
        # Estimates may shrink; the schedule does not go back.
        self._furthest = furthest
        return furthest

    def ends(self, step: int, seconds: float) -> bool:
        """Whether no step has room after `step` of them, at `seconds`."""
        return step >= self.steps or seconds + self._next() > self.seconds - self._ending

    def _next(self) -> float:
        return median(self._recent) if self._recent else 0.0
