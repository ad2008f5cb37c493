"""AdamW against torch's, step by step and across a save."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lmray.errors import UsageError
from lmray.native import tensors
from lmray.training import AdamW
from tests.devices import DEVICES

SETTINGS = {"lr": 3e-2, "betas": (0.8, 0.95), "eps": 1e-7, "weight_decay": 0.1}


def parameters(dtype=torch.float64, *shapes, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    return [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype))
        for shape in shapes or [(7, 5), (5,), ()]
    ]


def run(params, optimizer, steps, *, start=0):
    """Steps on a loss whose curvature differs by parameter; gradients depend on the step."""
    for step in range(start, start + steps):
        optimizer.zero_grad()
        sum(((p - i) ** 2 * (1 + step % 3)).sum() for i, p in enumerate(params)).backward()
        optimizer.step()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_torch_bit_for_bit_over_100_steps(dtype, device, monkeypatch):
    """In fp32 without the kernel: torch's roots on a CPU are not correctly rounded, its are."""
    if dtype == torch.float32:
        monkeypatch.setattr(tensors, "usable", lambda *_given: False)
    ours, theirs = (parameters(dtype, device=device) for _ in range(2))
    reference = torch.optim.AdamW(theirs, **SETTINGS, foreach=True)
    run(ours, AdamW(ours, **SETTINGS), 100)
    run(theirs, reference, 100)
    for mine, its in zip(ours, theirs, strict=True):
        assert torch.equal(mine, its)


def fused(x, y, z):
    """x * y + z of fp32 numbers, rounded once: fp64 holds their product exactly."""
    return (x.astype(np.float64) * y + z).astype(np.float32)


def test_the_kernel_equals_the_formula_in_numpy_bit_for_bit():
    one, lr, (beta1, beta2) = np.float32, SETTINGS["lr"], SETTINGS["betas"]
    kept, eps = one(1 - lr * SETTINGS["weight_decay"]), one(SETTINGS["eps"])
    ours = parameters(torch.float32, (131, 17), (16,), (5,), ())
    weights = [p.detach().numpy().copy() for p in ours]
    means, squares = ([np.zeros_like(w) for w in weights] for _ in range(2))
    optimizer = AdamW(ours, **SETTINGS)
    draw = np.random.default_rng(0)
    for step in range(1, 31):
        for i, param in enumerate(ours):
            g = draw.standard_normal(param.shape, np.float32)
            g = np.asarray(g * one(10.0) ** draw.integers(-6, 2), np.float32)
            param.grad = torch.from_numpy(g)
            means[i] = fused(one(1 - beta1), g - means[i], means[i])
            squares[i] = fused(one(1 - beta2) * g, g, squares[i] * one(beta2))
            root = np.sqrt(squares[i]) / one((1 - beta2**step) ** 0.5) + eps
            moved = one(lr / (1 - beta1**step)) * means[i] / root
            weights[i] = weights[i] * kept - moved
        optimizer.step()
        for param, weight in zip(ours, weights, strict=True):
            assert np.array_equal(param.detach().numpy(), weight)


@pytest.mark.parametrize("threads", [1, 3])
def test_fp32_is_as_near_to_fp64_as_torchs(threads):
    """Of sizes that threads share out, whatever lies behind what."""
    shapes = [(700, 401), (3,), (250_007,)]
    ours, theirs, exact = (
        parameters(dtype, *shapes) for dtype in (torch.float32, torch.float32, torch.float64)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    run(ours, AdamW(ours, **SETTINGS), 20)
    torch.set_num_threads(before)
    run(theirs, torch.optim.AdamW(theirs, **SETTINGS, foreach=True), 20)
    run(exact, torch.optim.AdamW(exact, **SETTINGS), 20)
    for mine, its, true in zip(ours, theirs, exact, strict=True):
        off, torchs_off = ((p.double() - true).abs().mean() for p in (mine, its))
        assert off < 1.1 * torchs_off
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)


def test_equals_torchs_plain_loop():
    ours, theirs = parameters(), parameters()
    run(ours, AdamW(ours, **SETTINGS), 100)
    run(theirs, torch.optim.AdamW(theirs, **SETTINGS, foreach=False), 100)
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-12, atol=1e-12)


def test_first_step_by_hand():
    """With bias correction the first step is lr * sign(g), after the decay."""
    weight = nn.Parameter(torch.tensor([2.0, -3.0], dtype=torch.float64))
    weight.grad = torch.tensor([0.5, -4.0], dtype=torch.float64)
    AdamW([weight], lr=0.1, eps=0.0, weight_decay=0.5).step()
    torch.testing.assert_close(weight.data, torch.tensor([1.8, -2.75], dtype=torch.float64))


def test_groups_have_their_own_settings_and_lr_may_change_between_steps():
    ours, theirs = parameters(), parameters()
    optimizers = [
        kind([{"params": ps[:1]}, {"params": ps[1:], "weight_decay": 0.0, "lr": 1e-3}], **SETTINGS)
        for kind, ps in ((AdamW, ours), (torch.optim.AdamW, theirs))
    ]
    for step in range(5):
        for params, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
            run(params, optimizer, 1, start=step)
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-12, atol=1e-12)


def test_parameters_without_gradient_rest_and_count_their_own_steps():
    ours, theirs = parameters(), parameters()
    for params, optimizer in (
        (ours, AdamW(ours, **SETTINGS)),
        (theirs, torch.optim.AdamW(theirs, **SETTINGS)),
    ):
        for step in range(4):
            optimizer.zero_grad()
            used = params if step % 2 else params[1:]
            sum((p**2).sum() for p in used).backward()
            before = params[0].detach().clone()
            optimizer.step()
            assert torch.equal(before, params[0]) == (step % 2 == 0)
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-12, atol=1e-12)


def test_state_dict_resumes_bit_for_bit():
    straight, broken = parameters(torch.float32), parameters(torch.float32)
    run(straight, AdamW(straight, **SETTINGS), 10)
    first = AdamW(broken, **SETTINGS)
    run(broken, first, 5)
    second = AdamW(broken, lr=1.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(broken, second, 5, start=5)
    for mine, its in zip(straight, broken, strict=True):
        assert torch.equal(mine, its)


def test_closure_computes_the_gradients():
    (weight, *_) = parameters()
    optimizer = AdamW([weight])

    def closure():
        loss = (weight**2).sum()
        loss.backward()
        return loss

    before = weight.detach().clone()
    assert optimizer.step(closure) == (before**2).sum()
    assert not torch.equal(weight, before)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lr": -1.0}, r"lr=-1.0 must not be negative"),
        ({"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\) must be in \[0, 1\)"),
        ({"eps": -1e-8}, r"eps=-1e-08 must not be negative"),
        ({"weight_decay": -0.1}, r"weight_decay=-0.1 must not be negative"),
    ],
)
def test_refuses_impossible_settings(setting, message):
    with pytest.raises(UsageError, match=message):
        AdamW(parameters(), **setting)


def test_low_precision_weights_follow_an_fp32_copy_that_torch_would_make():
    low = [nn.Parameter(p.detach().bfloat16()) for p in parameters(torch.float32)]
    copies = [nn.Parameter(p.detach().float()) for p in low]
    ours, theirs = AdamW(low, **SETTINGS), torch.optim.AdamW(copies, **SETTINGS, foreach=True)
    for step in range(20):
        ours.zero_grad()
        sum(((p.float() - i) ** 2 * (1 + step % 3)).sum() for i, p in enumerate(low)).backward()
        for mine, its in zip(low, copies, strict=True):
            its.grad = mine.grad.float()
        ours.step()
        theirs.step()
        for mine, its in zip(low, copies, strict=True):
            assert mine.dtype == torch.bfloat16
            assert torch.equal(mine, its.bfloat16())
            assert ours.state[mine]["exp_avg_sq"].dtype == torch.float32
