"""How large the batch of each step is, and so how many tokens a run has seen after it."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from lmray.config.sections import Data


@dataclass(frozen=True)
class BatchShape:
    """The batch of one optimizer step, over all workers."""

    sequences: int
    length: int
    """Tokens of each sequence."""

    @property
    def tokens(self) -> int:
        """Training tokens of the step."""
        return self.sequences * self.length


@dataclass(frozen=True)
class Stage:
    """Steps of one shape, one after another."""

    shape: BatchShape
    step: int
    """Steps before its first."""
    tokens: int
    """Training tokens before its first."""


class BatchSchedule:
    """The shapes of all steps; without ramps it is one for all."""

    def __init__(self, shapes: Iterable[tuple[int, BatchShape]], budget: int) -> None:
        """`shapes` are (tokens before it begins, shape), ascending from 0; `budget` is in tokens.

        A shape begins with the first step before which that many tokens are seen, so that no step
        is cut; one that the step before reaches across is left out, and so is what `budget` has no
        room for.
        """
        shapes = list(shapes)
        ends = [begin for begin, _ in shapes[1:]] + [budget]
        self.stages: list[Stage] = []
        self.steps = 0
        """Steps that fit the budget whole."""
        tokens = 0
        for (_, shape), end in zip(shapes, ends, strict=True):
            if tokens >= end:
                continue
            self.stages.append(Stage(shape, self.steps, tokens))
            wanted, paid = -(-(end - tokens) // shape.tokens), (budget - tokens) // shape.tokens
            self.steps += min(wanted, paid)
            tokens += min(wanted, paid) * shape.tokens
            if paid < wanted:
                break

    @property
    def unit(self) -> int:
        """The largest number of tokens of which every step has a multiple."""
        return math.gcd(*(stage.shape.tokens for stage in self.stages))

    def shape(self, step: int) -> BatchShape:
        """The batch of the step that follows `step` earlier ones; beyond the end, as before it."""
        return self._stage(step).shape

    def tokens(self, steps: int) -> int:
        """Training tokens of the first `steps` steps."""
        stage = self._stage(steps)
        return stage.tokens + (steps - stage.step) * stage.shape.tokens

    def cost(self, steps: int, price: Callable[[BatchShape], int]) -> int:
        """What the first `steps` steps cost together."""
        ends = [*(stage.step for stage in self.stages[1:]), steps]
        return sum(
            (min(end, steps) - stage.step) * price(stage.shape)
            for stage, end in zip(self.stages, ends, strict=True)
            if stage.step < steps
        )

    def affordable(self, limit: float, price: Callable[[BatchShape], float]) -> int:
        """How many of the steps, in order, cost at most `limit` together."""
        for stage, following in pairwise(self.stages):
            each, steps = price(stage.shape), following.step - stage.step
            if limit < steps * each:
                return stage.step + int(limit // each)
            limit -= steps * each
        last = self.stages[-1]
        return min(self.steps, last.step + int(limit // price(last.shape)))

    def _stage(self, step: int) -> Stage:
        return self.stages[bisect_right(self.stages, step, key=lambda stage: stage.step) - 1]


def batch_schedule(data: Data, context_length: int, budget: int) -> BatchSchedule:
    """What `data` and its ramps describe, for a model of `context_length` and `budget` tokens.

    Raises ValueError for a batch in tokens that is no whole number of sequences.
    """
    sizes = _starts(((p.share, p.batch_size) for p in data.batch_ramp), data.batch_size, budget)
    lengths = _starts(
        ((p.share, p.context_length) for p in data.length_ramp), context_length, budget
    )
    shapes: list[tuple[int, BatchShape]] = []
    for begin in sorted(sizes.keys() | lengths.keys()):
        size, length = (
            values[max(start for start in values if start <= begin)] for values in (sizes, lengths)
        )
        if data.batch_unit == "tokens":
            if size % length:
                raise ValueError(
                    f"data.batch_size={size} tokens is not divisible by model.context_length="
                    f"{length}; make it a multiple of that"
                )
            size //= length
        shape = BatchShape(size, length)
        if not shapes or shapes[-1][1] != shape:
            shapes.append((begin, shape))
    return BatchSchedule(shapes, budget)


def _starts(phases: Iterable[tuple[float, int]], rest: int, budget: int) -> dict[int, int]:
    """Values by the tokens before they begin to hold."""
    starts, begin, spent = {}, 0, 0.0
    for share, value in phases:
        starts[begin] = value
        spent += share
        begin = round(spent * budget)
    return starts | {begin: rest}
