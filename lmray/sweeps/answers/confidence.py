"""Means over seeds with their confidence, by Student's t: what a handful of runs can say."""

import math
import statistics
from dataclasses import dataclass

LEVEL = 0.95
"""Share of such intervals that hold the true mean, if seeds scatter normally."""


@dataclass(frozen=True)
class Estimate:
    """A mean of n numbers, how they scatter, and how well they tell the true mean."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """NaN if there are none."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def spread(self) -> float:
        """Sample standard deviation (of n - 1); NaN below two."""
        return statistics.stdev(self.values) if self.n > 1 else math.nan

    @property
    def margin(self) -> float:
        """Half the width of the confidence interval around the mean; NaN below two."""
        if self.n < 2:
            return math.nan
        return student_t(self.n - 1) * self.spread / math.sqrt(self.n)


def paired(ours: dict[int, float], theirs: dict[int, float]) -> Estimate:
    """The differences ours - theirs at the seeds that both have.

    A seed fixes initial weights and batches, so what it does to both cancels, and the interval is
    that of what differs alone.
    """
    return Estimate(tuple(ours[seed] - theirs[seed] for seed in sorted(ours) if seed in theirs))


def student_t(freedom: int, level: float = LEVEL) -> float:
    """The t within which a share `level` of Student's distribution lies around zero.

    `freedom` is a whole number of degrees; 1 gives 12.71 at 95 %, infinitely many 1.96.
    """
    low, high = 0.0, 1.0
    while _within(high, freedom) < level:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """P(|T| < t), in closed form (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term = total = 0.0 if freedom == 1 else cosine if odd else 1.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
