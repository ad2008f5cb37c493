"""What searches along one axis share: the grid first, then on each line what that line lacks."""

from collections.abc import Sequence
from dataclasses import dataclass

from lmray.sweeps.axes import Axes, Combination
from lmray.sweeps.search.designs import check_trials
from lmray.sweeps.search.lines import Line, check_line, check_ratio, combination, lines
from lmray.sweeps.search.outcomes import Outcome
from lmray.sweeps.search.spread import spread


@dataclass(frozen=True)
class Along:
    """A search along one axis, within each combination of the others by itself."""

    key: str
    """The axis, as in optim.lr."""
    ratio: float
    """Between two values, to which the search closes in."""
    trials: int = 20
    """Values tried at most on a line, the listed ones among them; each with every seed."""
    highest: float = 1.0
    """No value above it is tried; a configuration has no higher learning rate."""

    def __post_init__(self) -> None:
        check_trials(self.trials)
        check_ratio(type(self).__name__, self.ratio)

    def lacks(self, line: Line) -> list[float]:
        """The values that a line still lacks, the first to be tried next."""
        raise NotImplementedError

    def check(self, axes: Axes) -> None:
        """Raises UsageError for axes along which it cannot go on."""
        check_line(type(self).__name__, axes, self.key, highest=self.highest)

    def design(self, axes: Axes) -> list[Combination]:
        """The combinations that wait for no outcome."""
        return spread(axes)

    def most(self, axes: Axes) -> int:
        """Combinations tried at most."""
        design = self.design(axes)
        found = lines(axes, self.key, [Outcome(each, "running") for each in design])
        return len(design) + sum(max(0, self.trials - len(line.points)) for line in found)

    def next(self, axes: Axes, seen: Sequence[Outcome]) -> Combination | None:
        """A value that a line lacks; None while there is none to be known before others end."""
        for line in lines(axes, self.key, seen):
            if len(line.points) < self.trials:
                for value in self.lacks(line)[:1]:
                    return combination(axes, self.key, value, line.others)
        return None
