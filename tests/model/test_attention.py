"""Attention against torch's kernel, and what causality forbids."""

import pytest
import torch
from torch.nn import functional

from lmray.errors import UsageError
from lmray.model import (
    MultiHeadSelfAttention,
    RotaryPositionalEmbedding,
    scaled_dot_product_attention,
)
from tests.devices import DEVICES, largest_or_peak


def random_qkv(*, queries=7, keys=9):
    return [torch.randn(2, 3, n, 8, requires_grad=True) for n in (queries, keys, keys)]


@pytest.mark.parametrize("masked", [False, True])
def test_equals_torch_with_gradients(masked):
    q, k, v = random_qkv()
    mask = torch.rand(2, 1, 7, 9) > 0.5 if masked else None
    if mask is not None:
        mask[..., 0] = True  # every query attends somewhere
    ours = scaled_dot_product_attention(q, k, v, mask)
    reference = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(ours, reference)
    upstream = torch.randn_like(ours)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (q, k, v), upstream),
        torch.autograd.grad(reference, (q, k, v), upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def attention(kernel, *, rotary=True):
    torch.manual_seed(3)
    rope = RotaryPositionalEmbedding(10_000.0, 8, 32) if rotary else None
    return MultiHeadSelfAttention(32, 4, rope, attention=kernel).double()


@pytest.mark.parametrize("rotary", [True, False], ids=["rope", "no-positions"])
def test_math_equals_sdpa_with_gradients(rotary):
    torch.manual_seed(0)
    x, results = torch.randn(2, 20, 32, dtype=torch.float64), []
    for kernel in ("math", "sdpa"):
        layer, leaf = attention(kernel, rotary=rotary), x.clone().requires_grad_()
        out = layer(leaf)
        out.square().sum().backward()
        results.append([out, leaf.grad, *(p.grad for p in layer.parameters())])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_kv_heads", ["auto", 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fused_kernels_of_training_are_math_in_fp64_rounded(dtype, num_kv_heads, device):
    """Of the sizes of real models; in bf16 under autocast, as models are trained."""
    torch.manual_seed(0)
    x, results = torch.randn(2, 256, 256), []
    for kernel, precise in (("math", True), ("sdpa", False)):
        torch.manual_seed(1)
        rope = RotaryPositionalEmbedding(10_000.0, 64, 256)
        layer = MultiHeadSelfAttention(256, 4, rope, attention=kernel, num_kv_heads=num_kv_heads)
        leaf = x.clone()
        if precise:
            layer, leaf = layer.double(), leaf.double()
        else:
            layer, leaf = layer.to(device), leaf.to(device)
        leaf.requires_grad_()
        rounds = dtype == torch.bfloat16 and not precise
        with torch.autocast(leaf.device.type, dtype, enabled=rounds):
            out = layer(leaf)
        out.float().square().sum().backward()
        results.append([out, leaf.grad, *(p.grad for p in layer.parameters())])
    for true, found in zip(*results, strict=True):
        off = (found.detach().cpu().double() - true).norm() / true.norm()
        assert off < {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_kv_heads", ["auto", 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_kernels_make_no_scores_of_all_pairs(dtype, num_kv_heads, device):
    length = 4096
    layer = MultiHeadSelfAttention(64, 8, attention="sdpa", num_kv_heads=num_kv_heads).to(device)
    x = torch.randn(1, length, 64, device=device)

    def step():
        with torch.autocast(device, dtype, enabled=dtype == torch.bfloat16):
            out = layer(x)
        out.float().sum().backward()

    step()
    # One head's; what there is besides is a tenth of that.
    assert largest_or_peak(step, device) < length**2 * dtype.itemsize


@pytest.mark.parametrize("kernel", ["math", "sdpa"])
def test_equals_a_naive_attention_head_by_head(kernel):
    layer, x = attention(kernel), torch.randn(2, 10, 32, dtype=torch.float64)
    assert layer.rope is not None
    causal, outs = torch.ones(10, 10).triu(1).bool(), []
    for head in range(4):
        rows = slice(8 * head, 8 * head + 8)
        q, k, v = (x @ p.weight[rows].T for p in (layer.q_proj, layer.k_proj, layer.v_proj))
        q, k = layer.rope(q, torch.arange(10)), layer.rope(k, torch.arange(10))
        scores = (q @ k.mT / 8**0.5).masked_fill(causal, -torch.inf)
        outs.append(scores.softmax(-1) @ v)
    torch.testing.assert_close(layer(x), torch.cat(outs, -1) @ layer.output_proj.weight.T)


@pytest.mark.parametrize("kernel", ["math", "sdpa"])
def test_the_future_changes_nothing(kernel):
    layer, x = attention(kernel), torch.randn(1, 12, 32, dtype=torch.float64)
    changed = x.clone()
    changed[:, 7:] += 1
    before, after = layer(x), layer(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=1e-14)
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_only_differences_of_positions_count():
    layer, x = attention("math"), torch.randn(1, 12, 32, dtype=torch.float64)
    torch.testing.assert_close(layer(x), layer(x, torch.arange(15, 27)), rtol=1e-5, atol=1e-6)


def test_without_batch_dimension():
    layer, x = attention("math"), torch.randn(12, 32, dtype=torch.float64)
    torch.testing.assert_close(layer(x), layer(x.unsqueeze(0))[0])


def test_refuses_heads_that_do_not_divide_the_width():
    with pytest.raises(UsageError, match=r"d_model=100 is not divisible by num_heads=16; choose"):
        MultiHeadSelfAttention(100, 16)
