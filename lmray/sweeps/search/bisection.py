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

from lmray.sweeps.search.along import Along
from lmray.sweeps.search.lines import Line


@dataclass(frozen=True)
class Bisect(Along):
    """Halves the gap between what is stable and what diverges."""

    ratio: float = 1.1
    """Between the smallest diverged value and the largest stable one in the end."""

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
