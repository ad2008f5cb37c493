"""SGD against torch's and on the coursework's toy problem."""

import pytest
import torch
from torch import nn

from lmray.errors import UsageError
from lmray.training import SGD


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_equals_torch(momentum):
    ours, theirs = (nn.Parameter(torch.linspace(-3, 3, 10, dtype=torch.float64)) for _ in "ab")
    for params, optimizer in (
        (ours, SGD([ours], lr=0.05, momentum=momentum)),
        (theirs, torch.optim.SGD([theirs], lr=0.05, momentum=momentum)),
    ):
        for _ in range(30):
            optimizer.zero_grad()
            (params**4).sum().div(10).backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_decay_is_decoupled():
    weight = nn.Parameter(torch.tensor([2.0]))
    weight.grad = torch.tensor([1.0])
    SGD([weight], lr=0.1, weight_decay=0.5).step()
    assert weight.item() == pytest.approx(2.0 * 0.95 - 0.1)


@pytest.mark.parametrize("lr", [1.0, 10.0, 100.0, 1000.0])
def test_the_toy_follows_its_closed_form(lr):
    """Loss mean(w^2) of 100 weights at lr / sqrt(t + 1): times (1 - 2 lr / (100 sqrt(t + 1)))^2."""
    weight = nn.Parameter(5 * torch.randn(10, 10, dtype=torch.float64))
    optimizer = SGD([weight], lr=lr)
    expected = weight.square().mean().item()
    for t in range(10):
        optimizer.zero_grad()
        loss = weight.square().mean()
        assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-20)
        loss.backward()
        optimizer.param_groups[0]["lr"] = lr / (t + 1) ** 0.5
        optimizer.step()
        expected *= (1 - 2 * lr / (100 * (t + 1) ** 0.5)) ** 2


def test_refuses_impossible_settings():
    with pytest.raises(UsageError, match=r"lr=-1 must not be negative; choose another lr"):
        SGD([nn.Parameter(torch.zeros(1))], lr=-1)
