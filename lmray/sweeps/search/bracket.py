"""An adaptive bracket: the best value of an axis, neighbours that are worse, and where it ends.

    SPACE = {"optim.lr": [1e-4, 1e-3, 1e-2]}
    SEARCH = Bracket("optim.lr", ratio=1.5)

The values listed come first. Then the bracket is extended by their own ratio until the best is not
at its edge and a run above it has diverged (unless `to_divergence` is false), and the gaps beside
the best are halved, in the logarithm, until its neighbours are within `ratio`. All of that within
each combination of the other axes that has several values listed: where a batch size or a variant
is varied too, the rate is tuned for each. What is tried next follows from the outcomes alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmray.sweeps.axes import Axes, Combination, grid
from lmray.sweeps.search.designs import check_trials
from lmray.sweeps.search.lines import Line, check_line, check_ratio, combination, lines
from lmray.sweeps.search.outcomes import Outcome

_ENOUGH = 1.01
"""Neighbours may be this much wider than the ratio: values have four digits."""


@dataclass(frozen=True)
class Found:
    """What a line shows of its optimum."""

    best: float
    """The value that got furthest with the lowest loss; NaN where every one diverged."""
    below: float
    """The next lower value known; NaN if there is none."""
    above: float
    """The next higher value known, perhaps a diverged one; NaN if there is none."""
    diverged: float
    """The lowest value above the best that diverged; NaN if none did."""

    @property
    def interior(self) -> bool:
        """Whether values on both sides are known."""
        return self.below < self.best < self.above


def found_on(line: Line) -> Found:
    """The bracket of a line so far.

    The further a trial got the better it is, as early stopping has it; of those that got as far,
    those done among them, the one of lower loss.
    """
    nan = math.nan
    alive = [point for point in line.known if point[1].state != "diverged"]
    if not alive:
        return Found(nan, nan, nan, min((value for value, _ in line.known), default=nan))
    best = min(alive, key=_rank)[0]
    return Found(
        best,
        below=max((value for value, _ in line.known if value < best), default=nan),
        above=min((value for value, _ in line.known if value > best), default=nan),
        diverged=min(
            (v for v, each in line.known if each.state == "diverged" and v > best), default=nan
        ),
    )


def _rank(point: tuple[float, Outcome]) -> tuple[float, float]:
    outcome = point[1]
    return (-math.inf if outcome.state == "done" else -outcome.tokens, outcome.loss)


@dataclass(frozen=True)
class Bracket:
    """Extends a list of values until it holds the optimum, then refines around that."""

    key: str
    """The axis, as in optim.lr."""
    ratio: float = 1.5
    """Between the best value and its neighbours in the end."""
    trials: int = 20
    """Values tried at most on a line, the listed ones among them; each with every seed."""
    highest: float = 1.0
    """No value above it is tried; a configuration has no higher learning rate."""
    to_divergence: bool = True
    """Whether it goes up until a run above the best has diverged, and not only until one is
    worse."""

    def __post_init__(self) -> None:
        check_trials(self.trials)
        check_ratio("Bracket", self.ratio)

    def check(self, axes: Axes) -> None:
        """Raises UsageError for axes along which it cannot go on."""
        check_line("Bracket", axes, self.key, highest=self.highest)

    def design(self, axes: Axes) -> list[Combination]:
        """The combinations that wait for no outcome."""
        return grid(axes)

    def most(self, axes: Axes) -> int:
        """Combinations tried at most."""
        return most_on_lines(axes, self.key, self.design(axes), self.trials)

    def next(self, axes: Axes, seen: Sequence[Outcome]) -> Combination | None:
        """A value that a line lacks; None while there is none to be known before others end."""
        for line in lines(axes, self.key, seen):
            if len(line.points) < self.trials:
                for value in self.lacks(line)[:1]:
                    return combination(axes, self.key, value, line.others)
        return None

    def lacks(self, line: Line) -> list[float]:
        """The values that a line still lacks, what extends it before what refines it.

        None while the listed values have not been judged, nor where they are being tried.
        """
        if line.waits or not line.known:
            return []
        found = found_on(line)
        lowest, highest = line.known[0][0], line.known[-1][0]
        wanted = []
        if math.isnan(found.below):
            wanted.append(lowest / line.step)
        closed_above = found.diverged if self.to_divergence else found.above
        if math.isnan(closed_above) and highest < self.highest:
            wanted.append(min(highest * line.step, self.highest))
        if found.interior:
            gaps = [(found.best / found.below, found.below), (found.above / found.best, found.best)]
            wanted += [
                low * math.sqrt(gap)
                for gap, low in sorted(gaps, reverse=True)
                if gap > self.ratio * _ENOUGH
            ]
        return line.fresh(wanted)


def most_on_lines(axes: Axes, key: str, design: Sequence[Combination], trials: int) -> int:
    """Combinations of a search that tries at most so many values on each line."""
    found = lines(axes, key, [Outcome(each, "running") for each in design])
    return len(design) + sum(max(0, trials - len(line.points)) for line in found)
