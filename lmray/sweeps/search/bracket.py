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
from dataclasses import dataclass

from lmray.sweeps.search.along import Along
from lmray.sweeps.search.lines import Line
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
class Bracket(Along):
    """Extends a list of values until it holds the optimum, then refines around that."""

    ratio: float = 1.5
    """Between the best value and its neighbours in the end."""
    to_divergence: bool = True
    """Whether it goes up until a run above the best has diverged, and not only until one is
    worse."""

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
        wanted += [low * math.sqrt(gap) for gap, low in self.gaps(found)]
        return line.fresh(wanted)

    def gaps(self, found: Found) -> list[tuple[float, float]]:
        """Those beside an interior best that are wider than `ratio`, the wider first.

        Each as the factor and its lower end.
        """
        if not found.interior:
            return []
        beside = [(found.best / found.below, found.below), (found.above / found.best, found.best)]
        return [each for each in sorted(beside, reverse=True) if each[0] > self.ratio * _ENOUGH]
