"""Bisection: the largest value of an axis at which training is stable.

    SPACE = {"optim.lr": [1e-3, 1e-2, 1e-1]}
    SEARCH = Bisect("optim.lr", ratio=1.1)
    ASHA = TO_THE_END

A value is stable if its run reaches the end; the edge lies between the smallest value that diverged
and the largest stable one below that. Each seed has an edge of its own. The values listed come
first; while some seed diverged with none of them the list goes on by its own ratio, then each
seed's gap is halved in the logarithm until it is within `ratio`. All of that within each
combination of the other axes, and every value with every seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmray.sweeps.axes import Axes, Combination, grid
from lmray.sweeps.search.bracket import most_on_lines
from lmray.sweeps.search.designs import check_trials
from lmray.sweeps.search.lines import Line, check_line, check_ratio, combination, lines
from lmray.sweeps.search.outcomes import Outcome


@dataclass(frozen=True)
class Bisect:
    """Halves the gap between what is stable and what diverges."""

    key: str
    """The axis, as in optim.lr."""
    ratio: float = 1.1
    """Between the smallest diverged value and the largest stable one in the end."""
    trials: int = 20
    """Values tried at most on a line, the listed ones among them; each with every seed."""
    highest: float = 1.0
    """No value above it is tried; a configuration has no higher learning rate."""

    def __post_init__(self) -> None:
        check_trials(self.trials)
        check_ratio("Bisect", self.ratio)

    def check(self, axes: Axes) -> None:
        """Raises UsageError for axes along which it cannot go on."""
        check_line("Bisect", axes, self.key, highest=self.highest)

    def design(self, axes: Axes) -> list[Combination]:
        """The combinations that wait for no outcome."""
        return grid(axes)

    def most(self, axes: Axes) -> int:
        """Combinations tried at most."""
        return most_on_lines(axes, self.key, self.design(axes), self.trials)

    def next(self, axes: Axes, seen: Sequence[Outcome]) -> Combination | None:
        """The value to try next on a line; None while there is none."""
        for line in lines(axes, self.key, seen):
            if len(line.points) < self.trials:
                for value in self.lacks(line)[:1]:
                    return combination(axes, self.key, value, line.others)
        return None

    def lacks(self, line: Line) -> list[float]:
        """The values at which seeds have still to be tried, a seed's after the other's."""
        if line.waits:
            return []
        wanted = []
        for seed in range(max((len(each.seeds) for _, each in line.points), default=0)):
            ends = [(value, each.seeds[seed]) for value, each in line.points if each.seeds]
            stable, diverged = edge(ends)
            if math.isnan(diverged):
                wanted.append(min(ends[-1][0] * line.step, self.highest))
            elif math.isnan(stable):
                wanted.append(diverged / line.step)
            elif diverged / stable > self.ratio:
                wanted.append(math.sqrt(stable * diverged))
        return line.fresh(wanted)


def edge(ends: Sequence[tuple[float, str]]) -> tuple[float, float]:
    """The largest stable value below the smallest that diverged, and that; NaN where none did.

    `ends` are values, ascending, and how a seed ended there.
    """
    diverged = min((value for value, end in ends if end == "diverged"), default=math.nan)
    below = [value for value, end in ends if end == "done" and not value >= diverged]
    return max(below, default=math.nan), diverged
