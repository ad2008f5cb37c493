"""Clipping against torch's, also when handed a generator."""

import math

import pytest
import torch
from torch import nn

from lmray.training import clip_gradient_norm
from tests.devices import DEVICES


def parameters(scale=1.0, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    made = [nn.Parameter(torch.zeros(shape, device=device)) for shape in [(4, 3), (3,), ()]]
    for parameter in made:
        drawn = torch.randn(parameter.shape, generator=generator) * scale
        parameter.grad = drawn.to(device)
    return made


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("limit", [0.1, 1.0, math.inf])
def test_equals_torch(scale, limit, device):
    ours, theirs = (parameters(scale, device) for _ in range(2))
    norm = clip_gradient_norm(ours, limit)
    assert norm == nn.utils.clip_grad_norm_(theirs, limit)
    for mine, its in zip(ours, theirs, strict=True):
        assert torch.equal(mine.grad, its.grad)


def test_a_generator_is_read_once_and_its_gradients_are_scaled_in_place():
    params = parameters(1e3)
    grads = [p.grad for p in params]
    clip_gradient_norm((p for p in params), 1.0)
    assert all(p.grad is grad for p, grad in zip(params, grads, strict=True))
    norm = torch.cat([grad.flatten() for grad in grads]).norm()
    assert norm.item() == pytest.approx(1.0, rel=1e-4)


def test_passes_over_what_has_no_gradient():
    assert clip_gradient_norm([nn.Parameter(torch.ones(3))], 1.0) == 0
    params = [nn.Parameter(torch.ones(3)), *parameters()]
    assert clip_gradient_norm(params, 1.0) > 0
    assert params[0].grad is None


def test_a_norm_that_is_not_finite_is_told():
    params = parameters()
    params[0].grad[0, 0] = torch.nan
    assert clip_gradient_norm(params, 1.0).isnan()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_norm_of_low_precision_gradients_is_not_rounded_to_it(dtype, device):
    zeros = (torch.zeros(100, 10, dtype=dtype), torch.zeros(7))
    params = [nn.Parameter(tensor.to(device)) for tensor in zeros]
    for parameter in params:
        parameter.grad = torch.randn_like(parameter)
    exact = torch.cat([p.grad.double().flatten() for p in params]).norm().item()
    norm = clip_gradient_norm(params, 1.0)
    assert norm.dtype == torch.float32
    assert norm.item() == pytest.approx(exact, rel=1e-6)
    assert [p.grad.dtype for p in params] == [dtype, torch.float32]
    clipped = torch.cat([p.grad.double().flatten() for p in params]).norm().item()
    assert clipped == pytest.approx(1.0, rel=2**-8)  # the factor is rounded, as the gradients are
