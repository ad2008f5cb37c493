"""Cross-entropy against torch's, at ordinary and at extreme logits."""

import math

import pytest
import torch
from torch.nn import functional

from lmray.errors import UsageError
from lmray.model import cross_entropy


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_equals_torch_with_gradients(scale, dtype, reduction):
    logits = (torch.randn(4, 6, 50, dtype=dtype) * scale).requires_grad_()
    targets = torch.randint(50, (4, 6))
    ours = cross_entropy(logits, targets, reduction)
    reference = functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction=reduction
    ).view_as(ours)
    torch.testing.assert_close(ours, reference)
    upstream = torch.rand_like(ours)
    mine, theirs = (torch.autograd.grad(loss, logits, upstream)[0] for loss in (ours, reference))
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def test_passes_gradcheck():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 4, 2])
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, targets), logits)


def test_extreme_logits_stay_finite_and_exact():
    logits = torch.tensor([[1e30, -1e30, 0.0], [-1e30, -1e30, -1e30]], requires_grad=True)
    losses = cross_entropy(logits, torch.tensor([0, 1]), "none")
    losses.sum().backward()
    assert losses[0] == 0
    assert losses[1].item() == pytest.approx(math.log(3), rel=1e-6)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    wrong = cross_entropy(torch.tensor([[1e4, 0.0]]), torch.tensor([1]))
    assert wrong == 1e4


def test_hidden_targets_cost_infinity_and_hidden_others_nothing():
    logits = torch.tensor([[0.0, -torch.inf]])
    assert cross_entropy(logits, torch.tensor([0])) == 0
    assert cross_entropy(logits, torch.tensor([1])) == torch.inf


def test_nan_is_not_hidden():
    assert cross_entropy(torch.tensor([[0.0, torch.nan]]), torch.tensor([0])).isnan()


def test_uniform_logits_cost_ln_v():
    loss = cross_entropy(torch.zeros(2, 1000), torch.tensor([3, 999]))
    assert loss.item() == pytest.approx(math.log(1000), rel=1e-6)


def test_computes_in_fp32_for_bf16():
    logits = torch.randn(8, 50).bfloat16().requires_grad_()
    targets = torch.randint(50, (8,))
    loss = cross_entropy(logits, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, functional.cross_entropy(logits.float(), targets))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16


def test_backward_twice_gives_the_same():
    logits = torch.randn(3, 5, requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0, 4, 2]))
    first, second = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # by the kernel, and by torch
@pytest.mark.parametrize("target", [-100, -1, 5, 10**9])
def test_an_id_outside_the_vocabulary_is_refused(dtype, target):
    with pytest.raises(RuntimeError, match=f"index {target} is out of bounds"):
        cross_entropy(torch.randn(3, 5, dtype=dtype), torch.tensor([0, target, 2]))


def test_ids_of_another_type_are_the_same_ids():
    logits, targets = torch.randn(3, 5, requires_grad=True), torch.tensor([0, 4, 2])
    reference = functional.cross_entropy(logits, targets)
    ours = cross_entropy(logits, targets.int())
    torch.testing.assert_close(ours, reference)
    mine, theirs = (torch.autograd.grad(loss, logits)[0] for loss in (ours, reference))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1,), (4,), (3, 1), (1, 3)])
def test_targets_that_are_not_one_for_each_are_refused(dtype, shape):
    rule = r"are not one for each of the logits of shape \(3, 5\); give them the shape \(3,\)"
    with pytest.raises(UsageError, match=rule):
        cross_entropy(torch.randn(3, 5, dtype=dtype), torch.zeros(shape, dtype=torch.int64))
