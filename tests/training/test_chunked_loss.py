"""The loss in parts against torch's in fp32, and the memory that it takes."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lmray.model import cross_entropy
from lmray.training import chunked_loss
from lmray.training.accumulation import Room
from lmray.training.chunked_loss import mean_cross_entropy
from lmray.training.evaluation import evaluate
from tests.devices import DEVICES


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("chunk", [1, 37, 100, 1 << 24])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_and_gradient_equal_torchs_on_an_fp32_copy(chunk, dtype, device, monkeypatch):
    monkeypatch.setattr(chunked_loss, "_CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(3, 5, 11, generator=generator) * 8).to(device, dtype)
    targets = torch.randint(11, (3, 5), generator=generator).to(device)
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


def test_fp32_logits_in_parts_are_left_as_they_are():
    """As a GPU's are computed; on a CPU the model's own loss is for them."""
    logits, targets = torch.randn(15, 11, requires_grad=True), torch.randint(11, (15,))
    before = logits.detach().clone()
    ours = chunked_loss._ChunkedCrossEntropy.apply(logits, targets, 37).mean()
    expected = functional.cross_entropy(logits, targets)
    torch.testing.assert_close(ours, expected)
    mine, its = (torch.autograd.grad(loss, logits)[0] for loss in (ours, expected))
    torch.testing.assert_close(mine, its)
    assert torch.equal(logits.detach(), before)


class Fixed(nn.Module):
    """Logits that do not depend on what is asked."""

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = logits

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(ids)]


class Text:
    """A split of one document."""

    token_bytes = np.ones(4096)
    document_ends = np.array([129])

    def __len__(self):
        return 129

    def read(self, start, stop):
        return np.arange(start, stop)


def test_an_evaluation_makes_no_fp32_tensor_of_the_logits_size(monkeypatch):
    monkeypatch.setattr(chunked_loss, "_CHUNK", 8 * 4096)
    logits = torch.randn(8, 16, 4096).bfloat16()
    settings = {"context_length": 16, "batch_size": 8, "max_tokens": "all", "device": "cpu"}
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        found = evaluate(Fixed(logits), Text(), room=Room("auto"), **settings)
    exact = functional.cross_entropy(logits.flatten(0, 1).double(), torch.arange(1, 129))
    assert found.loss == pytest.approx(exact.item(), rel=1e-6)
    allocated = [event.self_cpu_memory_usage for event in profile.events()]
    assert max(allocated) < 8 * 16 * 4096 * 4 // 2


@pytest.mark.gpu
def test_on_a_gpu_fp32_logits_cost_their_gradient_and_little_more():
    logits = torch.randn(16_384, 16_384, device="cuda", requires_grad=True)  # 1 GiB
    targets = torch.randint(16_384, (16_384,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = mean_cross_entropy(logits, targets)
    loss.backward()
    assert torch.cuda.max_memory_allocated() - before < 1.5 * 2**30
    ours, logits.grad = logits.grad, None
    expected = functional.cross_entropy(logits, targets)
    torch.testing.assert_close(loss, expected)
    expected.backward()
    torch.testing.assert_close(ours, logits.grad, rtol=1e-4, atol=1e-9)
