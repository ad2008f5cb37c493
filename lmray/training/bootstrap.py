"""How far a split's loss could lie elsewhere had other documents of its kind been drawn."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """Where a number lies with 95 % confidence; both ends are NaN where nothing is known."""

    low: float
    high: float


def resampled_sums(
    per_document: Float[np.ndarray, "C D"], *, resamples: int = RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "R C"]:
    """Sums of C quantities over D documents drawn with replacement from the D there are, R times.

    The tokens of a document are not independent of one another, whole documents are (the cluster
    bootstrap; Efron and Tibshirani 1993, sections 6 and 8).
    """
    draw = np.random.default_rng(seed)
    documents = per_document.shape[1]
    sums = np.empty((resamples, len(per_document)))
    for row in sums:
        drawn = draw.integers(documents, size=documents, dtype=np.int32)
        row[:] = per_document @ np.bincount(drawn, minlength=documents).astype(np.float64)
    return sums


def percentile_interval(values: Float[np.ndarray, " R"]) -> Interval:
    """The middle 95 % of resampled values; unknown if one is not finite."""
    if not np.isfinite(values).all():
        return Interval(np.nan, np.nan)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return Interval(float(low), float(high))


def ratio_intervals(
    numerator: Float[np.ndarray, " D"], *denominators: Float[np.ndarray, " D"]
) -> list[Interval]:
    """Of sum(numerator) / sum(denominator) over the documents, for each denominator.

    Unknown of fewer than two documents, or of numbers that are not finite.
    """
    per_document = np.stack((numerator, *denominators))
    if per_document.shape[1] < 2 or not np.isfinite(per_document).all():
        return [Interval(np.nan, np.nan) for _ in denominators]
    sums = resampled_sums(per_document)
    return [percentile_interval(sums[:, 0] / each) for each in sums[:, 1:].T]
