"""The noise scale of gradients whose covariance is known."""

import math

import pytest
import torch
from torch import Tensor

from lmray.errors import UsageError
from lmray.training.noise_scale import noise_scale


def estimate(mean: Tensor, spread: Tensor, *, batches: int, batch_size: int, seed: int = 0):
    """Of a loss whose gradient, for one example, is `mean` plus noise of deviations `spread`."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(len(mean), dtype=torch.float64, requires_grad=True)
    data = mean + spread * torch.randn(
        batches, batch_size, len(mean), dtype=torch.float64, generator=generator
    )
    losses = [lambda part=part: (part @ weights).mean() for part in data]
    return noise_scale(losses, [weights], batch_size=batch_size)


def test_it_is_the_trace_of_the_covariance_over_the_squared_gradient():
    mean = torch.linspace(-1, 1, 50, dtype=torch.float64)
    spread = torch.linspace(0.5, 4, 50, dtype=torch.float64)
    truth = (spread.square().sum() / mean.square().sum()).item()
    found = estimate(mean, spread, batches=64, batch_size=32)
    assert found.value == pytest.approx(truth, rel=0.1)
    assert found.low < truth < found.high
    assert found.high / found.low < 2
    assert found.signal == pytest.approx(mean.square().sum().item(), rel=0.1)
    assert found.variance == pytest.approx(spread.square().sum().item(), rel=0.1)


def test_it_does_not_depend_on_the_size_of_the_batches():
    mean, spread = torch.ones(200, dtype=torch.float64), torch.full((200,), 3.0)
    small, large = (
        estimate(mean, spread, batches=64, batch_size=size, seed=1).value for size in (4, 64)
    )
    assert small == pytest.approx(9, rel=0.15)
    assert large == pytest.approx(9, rel=0.15)


def test_most_intervals_hold_the_truth():
    mean, spread = torch.ones(100, dtype=torch.float64), torch.full((100,), 2.0)
    found = [estimate(mean, spread, batches=12, batch_size=8, seed=seed) for seed in range(60)]
    assert sum(each.low < 4 < each.high for each in found) >= 50


def test_pure_noise_has_no_scale_and_too_few_batches_none_either():
    found = estimate(torch.zeros(2).double(), torch.ones(2), batches=4, batch_size=2, seed=3)
    assert found.high == math.inf
    assert found.low == 0
    with pytest.raises(UsageError, match="3 batches are too few"):
        estimate(torch.ones(2).double(), torch.ones(2), batches=3, batch_size=2)
