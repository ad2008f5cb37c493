"""The loss of low-precision logits against torch's in fp32."""

import pytest
import torch
from torch.nn import functional

from lmray.model import cross_entropy
from lmray.training import chunked_loss
from lmray.training.chunked_loss import mean_cross_entropy


@pytest.mark.parametrize("chunk", [1, 37, 100, 1 << 24])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_and_gradient_equal_torchs_on_an_fp32_copy(chunk, dtype, monkeypatch):
    monkeypatch.setattr(chunked_loss, "_CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(3, 5, 11, generator=generator) * 8).to(dtype)
    targets = torch.randint(11, (3, 5), generator=generator)
    ours, theirs = values.clone().requires_grad_(), values.float().requires_grad_()
    loss = mean_cross_entropy(ours, targets)
    expected = functional.cross_entropy(theirs.view(-1, 11), targets.view(-1))
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    loss.backward()
    expected.backward()
    assert ours.grad.dtype == dtype
    torch.testing.assert_close(ours.grad, theirs.grad.to(dtype), rtol=1e-2, atol=1e-6)


def test_fp32_logits_are_the_models_own_loss_bit_for_bit():
    logits, targets = torch.randn(4, 7), torch.tensor([0, 6, 3, 3])
    assert torch.equal(mean_cross_entropy(logits, targets), cross_entropy(logits, targets))


def test_no_fp32_tensor_of_the_logits_size_is_made():
    """By torch's own list of allocations; the gradient is as large, in bf16."""
    logits = torch.randn(64, 4096).bfloat16().requires_grad_()
    targets = torch.zeros(64, dtype=torch.int64)
    whole = 64 * 4096 * 4
    before = chunked_loss._CHUNK
    chunked_loss._CHUNK = 8 * 4096
    try:
        with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
            mean_cross_entropy(logits, targets).backward()
    finally:
        chunked_loss._CHUNK = before
    allocated = [event.self_cpu_memory_usage for event in profile.events()]
    assert whole // 2 <= max(allocated) < whole
