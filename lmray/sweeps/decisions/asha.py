"""How a sweep stops early: its rungs, what it takes to pass one, and what every trial must have.

Asynchronous successive halving in tokens: Li et al. 2020, arXiv:1810.05934. The rule itself is in
`lmray.sweeps.decisions.halving`.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from lmray.config import Run
from lmray.errors import UsageError

Mode = Literal["stop", "promote", "none"]


@dataclass(frozen=True)
class Asha:
    """The rungs of a sweep and the rule at them."""

    grace_tokens: int
    """Tokens of the first rung, which every trial trains; the paper's r."""
    reduction_factor: int = 3
    """One in this many goes on at each rung, and each rung is this many times the one before; the
    paper's eta."""
    mode: Mode = "stop"
    """stop judges a trial as it comes to a rung, by those before it. promote, the paper's, pauses
    it at its rung and lets it go on once it is among the best, also of those after it. none lets
    all trials train to their end."""
    min_results: int = 1
    """Losses at a rung below which it judges nobody: its trials wait (promote), or are judged by
    the rung below (stop)."""
    timeout_s: float = 3600.0
    """Seconds without a new record in its metrics after which a trial's process is killed; it has
    then failed. Longer than a start, an evaluation or a compilation takes."""

    def __post_init__(self) -> None:
        if self.grace_tokens < 1:
            raise UsageError(
                f"grace_tokens={self.grace_tokens} is below 1; give it a rung's tokens"
            )
        if self.reduction_factor < 2:
            raise UsageError(
                f"reduction_factor={self.reduction_factor} is below 2, so nothing would be "
                f"stopped; choose 2 or more"
            )
        if self.mode not in get_args(Mode):
            raise UsageError(f"mode={self.mode!r} is none of {', '.join(get_args(Mode))}")
        if self.min_results < 1:
            raise UsageError(f"min_results={self.min_results} is below 1; choose 1 or more")
        if not self.timeout_s > 0:
            raise UsageError(f"timeout_s={self.timeout_s} is not above 0; give it seconds")

    def rungs(self, budget_tokens: int) -> tuple[int, ...]:
        """Token counts below the budget at which trials are compared: grace * eta**k, ascending."""
        rungs = []
        rung = self.grace_tokens
        while self.mode != "none" and rung < budget_tokens:
            rungs.append(rung)
            rung *= self.reduction_factor
        return tuple(rungs)

    def question(self) -> dict[str, Any]:
        """What makes a sweep another one if it differs; how long to wait for a trial does not."""
        facts = asdict(self)
        del facts["timeout_s"]
        return facts

    def check(self, space: str, runs: Iterable[Run], budget_tokens: int) -> None:
        """Refuses rungs at which the trials cannot be compared at equal tokens.

        Raises UsageError as `refusal` says.
        """
        for run in runs if self.rungs(budget_tokens) else ():
            if reason := self.refusal(run, budget_tokens):
                raise UsageError(f"space {space}: {reason}")

    def refusal(self, run: Run, budget_tokens: int) -> str:
        """Why a run cannot be judged at the rungs: it ends before one, or nobody knows where, has
        no step that ends on one, does not evaluate there, or is still in its warm-up. Empty if it
        can.
        """
        levels = self.rungs(budget_tokens)
        if not levels:
            return ""
        if reason := _ends_before(levels[-1], run):
            return reason
        for unit, key in (
            (run.evaluation.interval_tokens, "evaluation.interval_tokens"),
            (run.batches.unit, "the tokens of a step"),
        ):
            if self.grace_tokens % unit:
                nearest = max(1, round(self.grace_tokens / unit)) * unit
                return (
                    f"asha.grace_tokens={self.grace_tokens} is not a multiple of {key}={unit}, so "
                    f"no validation would fall on a rung; make it {nearest}"
                )
        for level in levels:
            if level < run.training_tokens and not _step_ends_at(level, run):
                return (
                    f"no step of a run whose batches grow ends at the rung of {level} tokens; "
                    f"choose asha.grace_tokens and the ramps of data so that each rung is where a "
                    f"step ends"
                )
        warmup = _warmup_tokens(run)
        if self.grace_tokens < warmup:
            return (
                f"asha.grace_tokens={self.grace_tokens} lies within the warm-up of {warmup} "
                f"tokens, where learning rates cannot be told apart; raise it or lower "
                f"optim.warmup_fraction={run.optim.warmup_fraction:g}"
            )
        return ""


def _ends_before(level: int, run: Run) -> str:
    rungs = "rungs are in tokens; set asha.mode=none, or drop"
    if run.budget.seconds != "none":
        return (
            f"budget.seconds={run.budget.seconds:g} ends each run at other tokens, and {rungs} "
            f"budget.seconds and give budget.tokens what they train in that time"
        )
    if run.steps < run.batches.steps and run.training_tokens <= level:
        return (
            f"budget.steps={run.budget.steps} ends a run with data.batch_size="
            f"{run.data.batch_size} at {run.training_tokens} tokens, not beyond the rung of "
            f"{level}, and {rungs} budget.steps and lower budget.tokens"
        )
    return ""


def _step_ends_at(tokens: int, run: Run) -> bool:
    steps = bisect_left(range(run.steps + 1), tokens, key=run.batches.tokens)
    return run.batches.tokens(steps) == tokens


def _warmup_tokens(run: Run) -> int:
    if run.optim.schedule == "phases":
        return 0
    return run.batches.tokens(round(run.optim.warmup_fraction * run.steps))


TO_THE_END = Asha(grace_tokens=1, mode="none")
"""First in, first out: no trial is stopped."""
