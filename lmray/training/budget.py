"""How far a run is through its budget, and which step is its last."""

import math
from collections import deque
from statistics import median

from lmray.accounting import step_flops
from lmray.config import Run
from lmray.errors import PreflightError

_MARGIN = 1.2
"""The last evaluations and the checkpoint are held to take this many times what they took."""


class Meter:
    """Measures a run against the limits of its budget; the one nearest to its end counts."""

    def __init__(self, run: Run) -> None:
        """Raises PreflightError if budget.flops does not pay for a step of the full batch."""
        self._batches = run.batches
        self.steps = run.steps
        """Optimizer steps that all limits but that of time pay for."""
        if run.budget.flops != "none":
            paid = self._batches.affordable(
                run.budget.flops, lambda shape: step_flops(run.model, shape)
            )
            self.steps = min(self.steps, paid)
            if self.steps <= self._batches.stages[-1].step:
                full = self._batches.stages[-1]
                raise PreflightError(
                    f"budget.flops={run.budget.flops:g} has no room for one step of the full "
                    f"batch, {step_flops(run.model, full.shape):g} operations after {full.step} "
                    f"steps of ramps; raise the budget or lower the batch"
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

        In milliseconds, or in the largest number of tokens that makes up every step, which without
        ramps is a step; of the limit that is nearest to its end.
        """
        by_tokens = (self._units(step + 1), self._units(self.steps))
        if not self.timed:
            return by_tokens
        total = max(1, round(1000 * (self.seconds - self._ending)))
        after = min(max(1, round(1000 * (seconds + self._next()))), total)
        furthest = max(
            by_tokens, (after, total), self._furthest, key=lambda pair: pair[0] / pair[1]
        )
        # Estimates may shrink; the schedule does not go back.
        self._furthest = furthest
        return furthest

    def ends(self, step: int, seconds: float) -> bool:
        """Whether no step has room after `step` of them, at `seconds`."""
        return step >= self.steps or seconds + self._next() > self.seconds - self._ending

    def _units(self, steps: int) -> int:
        return self._batches.tokens(steps) // self._batches.unit

    def _next(self) -> float:
        return median(self._recent) if self._recent else 0.0
