"""Lines: the values of one axis within each combination of the others, and what is known there."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmray.errors import UsageError
from lmray.refusal import unknown_key
from lmray.sweeps.axes import (
    Axes,
    Combination,
    Integer,
    Uniform,
    Variants,
    When,
    branches,
    identity,
)
from lmray.sweeps.search.outcomes import Outcome

_SAME = 1e-3
"""Values whose logarithms differ by less are one: they are rounded to four digits."""


@dataclass(frozen=True)
class Line:
    """The values tried of one axis within one combination of the other axes."""

    others: Combination
    """The values of the other axes."""
    grid: tuple[float, ...]
    """The values that the space lists, ascending."""
    points: tuple[tuple[float, Outcome], ...]
    """Every value tried, ascending, and how it stands."""

    @property
    def step(self) -> float:
        """The grid's own ratio from one value to the next, on average."""
        return (self.grid[-1] / self.grid[0]) ** (1 / (len(self.grid) - 1))

    @property
    def waits(self) -> bool:
        """Whether nothing is known yet of one of the grid's values."""
        return any(
            value in self.grid and each.state == "running" and not each.tokens
            for value, each in self.points
        )

    @property
    def known(self) -> list[tuple[float, Outcome]]:
        """The points of which something is known: a loss, or that they diverged."""
        return [
            (value, each)
            for value, each in self.points
            if each.state != "failed" and (each.state != "running" or each.tokens)
        ]

    def fresh(self, values: Sequence[float]) -> list[float]:
        """Those of `values` that have not been tried, failed or are not being tried."""
        rounded = [float(f"{value:.4g}") for value in values]
        return [
            value
            for value in rounded
            if all(abs(math.log(value / tried)) > _SAME for tried, _ in self.points)
        ]


def lines(axes: Axes, key: str, seen: Sequence[Outcome]) -> list[Line]:
    """The lines along `key` on which the space lists several values, in the order of `seen`.

    Where it lists one, that is fixed.
    """
    groups: dict[str, tuple[Combination, list[tuple[float, Outcome]]]] = {}
    for each in seen:
        others = {name: value for name, value in each.combination.items() if name != key}
        points = groups.setdefault(identity(others), (others, []))[1]
        if key in each.combination:
            points.append((each.combination[key], each))
    found = []
    for others, points in groups.values():
        grid = listed(axes, key, others)
        if len(grid) > 1 and points:
            found.append(Line(others, grid, tuple(sorted(points, key=lambda point: point[0]))))
    return found


def listed(axes: Axes, key: str, others: Mapping[str, Any]) -> tuple[float, ...]:
    """The values of `key` that the space lists beside these of the other axes, ascending."""
    for condition, leaf in branches(axes[key]):
        if When(condition, []).holds(others):
            return tuple(sorted(leaf))  # pyrefly: ignore
    return ()


def combination(axes: Axes, key: str, value: float, others: Mapping[str, Any]) -> Combination:
    """A point of a line as a combination, in the order of the axes."""
    values = {**others, key: value}
    return {name: values[name] for name in axes if name in values}


def check_line(search: str, axes: Axes, key: str, *, highest: float) -> None:
    """Refuses axes along which a search cannot go on from a list of values.

    Raises UsageError for a key that is no axis, is waited for by another, or has no list of
    positive numbers up to `highest`.
    """
    if key not in axes:
        raise UsageError(unknown_key(key, list(axes)))
    several = False
    for _, leaf in branches(axes[key]):
        if isinstance(leaf, Uniform | Integer | Variants) or not all(map(_is_positive, leaf)):
            raise UsageError(f"{search} begins with a list of values above 0 and {key}={leaf!r}")
        if max(leaf) > highest:
            raise UsageError(
                f"{search} tries no {key} above {highest:g} and the space lists {max(leaf):g}; "
                f"lower that, or raise highest"
            )
        several |= len(leaf) > 1
    if not several:
        raise UsageError(
            f"{search} goes on by the ratio of the values listed, and {key} has one at a time; "
            f"list two or more"
        )
    for name, axis in axes.items():
        if any(key in condition for condition, _ in branches(axis)):
            raise UsageError(
                f"{search} tries values of {key} that are not listed, and {name} waits for some; "
                f"drop that condition"
            )


def check_ratio(search: str, ratio: float) -> None:
    """Raises UsageError for a ratio that nothing can be refined to."""
    if not ratio > 1:
        raise UsageError(f"{search} ratio={ratio} is not above 1; neighbours differ by a factor")


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
