"""Population based training (Jaderberg et al. 2017, arXiv:1711.09846), one generation at a time.

    SPACE = {"optim.lr": LogUniform(1e-4, 1e-1)}
    SEARCH = Population(members=8, generations=8)
    ASHA = TO_THE_END

All members train an equal share of budget.tokens, a generation, from points of a Sobol sequence.
Then the worst are replaced: each begins the next generation from the end of one of the best, drawn
by lot, its ranges multiplied or divided by a factor, its choices drawn anew. The others go on as
they are. A member's share is a trial that begins from its parent's, so a schedule of what is varied
comes about along each lineage, and no generation begins before the last one has ended.
"""

import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmray.config import Run
from lmray.errors import UsageError
from lmray.sweeps.axes import (
    Axes,
    Combination,
    Integer,
    Leaf,
    Uniform,
    Variants,
    at,
    combine,
    identity,
)
from lmray.sweeps.search.designs import Sobol
from lmray.sweeps.search.outcomes import Outcome

TOKENS, PARENT = "budget.tokens", "begins_from"
"""What a member's combination has beside the axes: where it ends, and from which trial it began."""

_ATTEMPTS = 50


@dataclass(frozen=True)
class Population:
    """Members that train side by side; the worst take over the best ones' states."""

    members: int
    """Combinations of a generation."""
    generations: int
    """Equal shares of budget.tokens, after each of which but the last the worst are replaced."""
    quantile: float = 0.25
    """Share of the members that are replaced, rounded up, and of those that they are replaced by;
    what diverged or failed is replaced too."""
    factor: float = 1.25
    """A replaced member's numbers are its parent's, multiplied or divided by it."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.members < 2 or self.generations < 2:
            raise UsageError(
                f"Population of {self.members} members and {self.generations} generations has "
                f"nobody to replace, or no time to; give it two or more of each"
            )
        if not 0 < self.quantile <= 0.5:
            raise UsageError(
                f"Population quantile={self.quantile} is not above 0 and at most 0.5: the worst "
                f"are replaced by others than themselves"
            )
        if not self.factor > 1:
            raise UsageError(f"Population factor={self.factor} is not above 1 and changes nothing")

    def check(self, axes: Axes, base: Run, seeds: Sequence[int]) -> None:
        """Raises UsageError for what members cannot take over from another's checkpoint."""
        if len(seeds) > 1:
            raise UsageError(
                f"Population has {len(seeds)} seeds, and members who take over each other's state "
                f"have one; set SEEDS = [0], and sweep again under another --name for another seed"
            )
        changed = {
            key
            for name, axis in axes.items()
            for key in (
                [key for changes in axis.values() for key in changes]
                if isinstance(axis, Variants)
                else [name]
            )
        }
        fixed = ("optim.name", "optim.precision", "optim.no_decay", "optim.schedule")
        wrong = sorted(k for k in changed if not k.startswith("optim.") or k in fixed)
        if wrong:
            raise UsageError(
                f"Population varies {wrong[0]}, which a run that begins from another has from that "
                f"one; vary optim.lr, weight_decay, beta1, beta2, clip_norm and their like"
            )
        if base.optim.schedule != "constant":
            raise UsageError(
                f"Population makes a schedule of its own and optim.schedule={base.optim.schedule} "
                f"would end anew with each generation; set optim.schedule=constant"
            )
        limits = [
            key for key in ("steps", "flops", "seconds") if getattr(base.budget, key) != "none"
        ]
        if limits or base.begins_from != "none" or len(base.batches.stages) > 1:
            what = f"budget.{limits[0]}" if limits else "begins_from, or a ramp of data,"
            raise UsageError(
                f"Population ends its generations by budget.tokens, all at the same step from the "
                f"same beginning, and the base has {what} too; drop that"
            )
        unit = self.generations * base.batches.unit
        if base.budget.tokens % unit:
            raise UsageError(
                f"budget.tokens={base.budget.tokens} is not {self.generations} generations of "
                f"whole steps of {base.batches.unit} tokens; make it a multiple of {unit}"
            )

    def design(self, axes: Axes) -> list[Combination]:
        """The points at which the first generation begins; they wait for no outcome."""
        return Sobol(self.members, self.seed).design(axes)

    def first(self, axes: Axes, budget_tokens: int) -> list[Combination]:
        """The first generation."""
        share = budget_tokens // self.generations
        return [{**each, TOKENS: share} for each in self.design(axes)]

    def most(self, axes: Axes) -> int:
        """Combinations tried at most."""
        return self.members * self.generations

    def next(self, axes: Axes, seen: Sequence[Outcome]) -> Combination | None:
        """The next member of the generation under way; None while the one before has not ended.

        What was added beside the population is passed over.
        """
        born: dict[int, list[Outcome]] = {}
        for each in seen:
            if TOKENS in each.combination:
                born.setdefault(each.combination[TOKENS], []).append(each)
        if not born:
            return None
        share, last = min(born), max(born)
        if len(born[last]) < len(before := born.get(last - share, [])):
            if _running(before):
                return None
            planned = self.generation(axes, before, last // share - 1)
            if len(born[last]) < len(planned):
                # Of a parent that was retried since, others may be planned than are there.
                there = {identity(each.combination) for each in born[last]}
                return next(each for each in planned if identity(each) not in there)
        if last == share * self.generations or _running(born[last]):
            return None
        return next(iter(self.generation(axes, born[last], last // share)), None)

    def generation(self, axes: Axes, parents: Sequence[Outcome], number: int) -> list[Combination]:
        """The generation of that number, from 1, after `parents`, all of which have ended.

        Each member has its parent's place. One of the worst goes on as it is where fifty draws find
        nothing new for it; where there is nothing to go on from either, its place stays empty.
        """
        count = min(math.ceil(self.quantile * len(parents)), len(parents) // 2)
        done = [place for place, each in enumerate(parents) if each.state == "done"]
        ranked = sorted(done, key=lambda place: parents[place].loss)
        best = [parents[place] for place in ranked[:count]]
        going_on = {p: _child(parents[p], parents[p].combination, number) for p in done}
        members = {place: going_on[place] for place in ranked[: len(parents) - count]}
        for place in range(len(parents)):
            if place not in members:
                draw = random.Random(f"{self.seed} {number} {place}")
                found = self._copy(axes, best, number, draw, members.values())
                if found or place in going_on:
                    members[place] = found or going_on[place]
        return [members[place] for place in sorted(members)]

    def _copy(
        self,
        axes: Axes,
        best: Sequence[Outcome],
        number: int,
        draw: random.Random,
        taken: Collection[Combination],
    ) -> Combination:
        """One of the best, changed, so that it is none of those `taken`; empty if none is found."""
        for _ in range(_ATTEMPTS if best else 0):
            parent = draw.choice(best)
            old = parent.combination
            values = combine(
                axes,
                lambda name, leaf, old=old: self._changed(
                    leaf, old.get(name.partition("#")[0]), draw
                ),
            )
            found = _child(parent, values, number)
            if found not in taken:
                return found
        return {}

    def _changed(self, leaf: Leaf, value: Any, draw: random.Random) -> Any:
        """A parent's value perturbed; drawn anew where it is a choice or the parent had none."""
        if not isinstance(leaf, Uniform | Integer):
            return draw.choice(list(leaf))
        if not isinstance(value, int | float):
            return at(leaf, draw.random())
        moved = value * draw.choice((self.factor, 1 / self.factor))
        if isinstance(leaf, Integer):
            return min(max(round(moved), leaf.low), leaf.high)
        return leaf.rounded(moved)


def _running(generation: Sequence[Outcome]) -> bool:
    return any(each.state == "running" for each in generation)


def _child(parent: Outcome, values: Mapping[str, Any], number: int) -> Combination:
    """What goes on from a parent's trial through the generation of that number, with `values`."""
    tokens = parent.combination[TOKENS] // number * (number + 1)
    return {**values, TOKENS: tokens, PARENT: parent.trials[0]}
