"""The gradient noise scale: the batch size beyond which more examples add little to a step.

B_simple = tr(Sigma) / |G|^2, where G is the true gradient and Sigma the covariance of one example's
(McCandlish et al. 2018, "An empirical model of large-batch training", appendix A). With batches far
below it, twice the batch is worth almost twice the steps; far above it, next to nothing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lmray.errors import UsageError

FEWEST = 4
"""Batches below which there is no telling how sure an estimate is."""


@dataclass(frozen=True)
class NoiseScale:
    """An estimate; everything is in the unit that the size of the batches was given in."""

    value: float
    """tr(Sigma) / |G|^2, infinite where |G|^2 is not to be told from zero."""
    low: float
    """Two standard errors below in logarithms, by leaving out one batch at a time; 0 if unknown."""
    high: float
    """Two standard errors above; infinite if unknown."""
    signal: float
    """|G|^2, as far as it is known without bias; it may come out negative."""
    variance: float
    """tr(Sigma)."""


def noise_scale(
    losses: Sequence[Callable[[], Float[Tensor, ""]]],
    parameters: Sequence[Tensor],
    *,
    batch_size: int,
) -> NoiseScale:
    """Estimates the noise scale from the mean losses of disjoint random batches of `batch_size`.

    The gradients g of two batches share nothing but G, so E[g g'] = |G|^2, and E|g|^2 = |G|^2 +
    tr(Sigma) / batch_size. The gradients of all batches are held at once.

    Raises UsageError for fewer than FEWEST batches.
    """
    if len(losses) < FEWEST:
        raise UsageError(
            f"{len(losses)} batches are too few to tell noise from signal; give {FEWEST} or more"
        )
    gradients = [
        torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss(), parameters)])
        for loss in losses
    ]
    stacked = torch.stack(gradients)
    return _estimate((stacked @ stacked.T).double().cpu(), batch_size)


def _estimate(products: Float[Tensor, "n n"], batch_size: int) -> NoiseScale:
    signal, variance = _moments(products, batch_size)
    if signal <= 0:
        return NoiseScale(math.inf, 0.0, math.inf, signal, variance)
    n = len(products)
    others = [torch.arange(n) != left_out for left_out in range(n)]
    without = [_moments(products[kept][:, kept], batch_size) for kept in others]
    if min(signal_without for signal_without, _ in without) <= 0:
        return NoiseScale(variance / signal, 0.0, math.inf, signal, variance)
    logs = torch.tensor([math.log(v / s) for s, v in without], dtype=torch.float64)
    error = ((n - 1) * logs.var(correction=0)).sqrt().item()
    value = variance / signal
    width = math.exp(2 * error)
    return NoiseScale(value, value / width, value * width, signal, variance)


def _moments(products: Float[Tensor, "n n"], batch_size: int) -> tuple[float, float]:
    """|G|^2 and tr(Sigma) from the products of gradients with one another."""
    n = len(products)
    squares = products.diagonal().sum().item()
    signal = (products.sum().item() - squares) / (n * (n - 1))
    return signal, batch_size * (squares / n - signal)
