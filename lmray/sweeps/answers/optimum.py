"""Where a loss is lowest along an axis: a parabola near the minimum, its lowest point, how sure.

With x the logarithm of the value, loss = a_seed + b x + c x^2 by least squares: a seed fixes
initial weights and batches and shifts all its losses, so each has a level of its own. The optimum
is -b / (2 c). Its interval is Fieller's (1954): the x at which the slope b + 2 c x is not told from
zero by Student's t. It is exact where losses scatter normally around a parabola, as the delta
method is not for a ratio; what the true curve departs from a parabola counts as scatter.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmray.sweeps.answers.confidence import student_t

WINDOW = 3.0
"""Values within this factor of the one of lowest loss are fitted: further out the bowl is no
parabola."""

FEWEST = 4
"""Values that a parabola and its scatter take."""

Losses = Mapping[float, Mapping[int, float]]
"""By value of the axis, then by seed."""


@dataclass(frozen=True)
class Optimum:
    """The lowest point of a parabola, as far as the losses tell it; NaN is what they do not."""

    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    loss: float
    """The parabola's at its lowest point, at the mean level of the seeds."""
    curvature: float
    """c: the loss grows by c ln(v / value)^2."""
    values: tuple[float, ...]
    """Those fitted, ascending."""
    n: int
    """Losses fitted, over values and seeds."""
    unknown: str
    """Why the value or its interval is not known; empty if both are."""

    def loss_at(self, value: float) -> float:
        """The parabola's."""
        return self.loss + self.curvature * math.log(value / self.value) ** 2


def optimum(losses: Losses) -> Optimum:
    """Fits the losses near the lowest mean; of values with different seeds those with most count.

    Nothing is known where the lowest is at the edge of the values tried, fewer than four are near
    it, they do not curve upwards, or the parabola's lowest point lies outside them; nor is an
    interval that leaves them.
    """
    most = max((len(by_seed) for by_seed in losses.values()), default=0)
    means = {v: statistics.fmean(s.values()) for v, s in losses.items() if len(s) == most > 0}
    if not means:
        return _unknown((), 0, "no trial has a loss there")
    lowest = min(means, key=means.__getitem__)
    near = {v: losses[v] for v in sorted(losses) if 1 / WINDOW <= v / lowest <= WINDOW}
    points = [
        (math.log(v / lowest), seed, loss) for v, s in near.items() for seed, loss in s.items()
    ]
    seeds = sorted({seed for _, seed, _ in points})
    freedom = len(points) - len(seeds) - 2
    if len(near) < FEWEST or freedom < 1:
        why = f"values within a factor of {WINDOW:g} of the lowest: {len(near)}, too few"
        return _unknown(tuple(near), len(points), why)
    if lowest in (min(losses), max(losses)):
        why = "the lowest loss is at the edge of the values known"
        return _unknown(tuple(near), len(points), why)
    x, y = np.array([p[0] for p in points]), np.array([p[2] for p in points])
    levels = np.array([[float(seed == each) for each in seeds] for _, seed, _ in points])
    design = np.column_stack((levels, x, x * x))
    fitted, *_ = np.linalg.lstsq(design, y)
    scatter = float(((y - design @ fitted) ** 2).sum()) / freedom
    spread = scatter * np.linalg.inv(design.T @ design)[-2:, -2:]
    b, c = float(fitted[-2]), float(fitted[-1])
    if c <= 0:
        return _unknown(tuple(near), len(points), "the losses do not curve upwards")
    place = -b / (2 * c)
    if not x.min() <= place <= x.max():
        why = "the parabola's lowest point lies outside the values"
        return _unknown(tuple(near), len(points), why)
    low, high = _fieller(b, c, spread, student_t(freedom))
    known = x.min() <= low <= high <= x.max()
    return Optimum(
        value=lowest * math.exp(place),
        low=lowest * math.exp(low) if known else math.nan,
        high=lowest * math.exp(high) if known else math.nan,
        loss=float(fitted[:-2].mean()) - b * b / (4 * c),
        curvature=c,
        values=tuple(near),
        n=len(points),
        unknown="" if known else "the losses scatter too much, its interval leaves the values",
    )


def _unknown(values: tuple[float, ...], n: int, why: str) -> Optimum:
    nan = math.nan
    return Optimum(nan, nan, nan, nan, nan, values, n, why)


def _fieller(b: float, c: float, spread: np.ndarray, t: float) -> tuple[float, float]:
    """The x where (b + 2 c x)^2 <= t^2 times its variance; infinite where that has no bounds."""
    square = 4 * (c * c - t * t * float(spread[1, 1]))
    linear = 4 * (b * c - t * t * float(spread[0, 1]))
    constant = b * b - t * t * float(spread[0, 0])
    if square <= 0:
        return -math.inf, math.inf
    root = math.sqrt(max(0.0, linear * linear - 4 * square * constant))
    return (-linear - root) / (2 * square), (-linear + root) / (2 * square)
