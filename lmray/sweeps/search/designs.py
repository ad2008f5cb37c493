"""Searches that know all their combinations before the first trial: grid, random, Sobol."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lmray.errors import UsageError
from lmray.sweeps.axes import Axes, Combination, at, combine, identity, leaves
from lmray.sweeps.search.spread import spread


@dataclass(frozen=True)
class Grid:
    """Every combination of the choices."""

    def design(self, axes: Axes) -> list[Combination]:
        """The combinations, in the order of `spread`."""
        return spread(axes)


@dataclass(frozen=True)
class Random:
    """Independent draws (Bergstra and Bengio 2012): no axis is tried at few values only."""

    trials: int
    """Combinations drawn; each is trained with every seed."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_trials(self.trials)

    def design(self, axes: Axes) -> list[Combination]:
        """The combinations, in the order in which they were drawn; repeated ones once."""
        draw = random.Random(self.seed)
        names = [name for name, _ in leaves(axes)]
        points = [[draw.random() for _ in names] for _ in range(self.trials)]
        return from_points(axes, points)


@dataclass(frozen=True)
class Sobol:
    """Points of a scrambled Sobol sequence: as random ones, but without gaps and clusters.

    Powers of two are filled evenly, and any beginning of the sequence is spread over the whole.
    """

    trials: int
    """Combinations drawn; each is trained with every seed."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_trials(self.trials)

    def design(self, axes: Axes) -> list[Combination]:
        """The combinations, in the order of the sequence; repeated ones once."""
        from torch.quasirandom import SobolEngine

        dimensions = len(list(leaves(axes)))
        engine = SobolEngine(dimensions, scramble=True, seed=self.seed)
        return from_points(axes, engine.draw(self.trials).tolist())


def check_trials(trials: int) -> None:
    """Raises UsageError for a search that tries nothing."""
    if trials < 1:
        raise UsageError(f"trials={trials} is below 1; say how many combinations to try")


def from_points(axes: Axes, points: Sequence[Sequence[float]]) -> list[Combination]:
    """The combinations at points of the unit cube, which has a dimension for each leaf."""
    place = {name: index for index, (name, _) in enumerate(leaves(axes))}
    found = {}
    for point in points:
        made = combine(axes, lambda name, leaf, point=point: at(leaf, point[place[name]]))
        found.setdefault(identity(made), made)
    return list(found.values())
