"""Each layer against torch's own, values and gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from lmray.errors import UsageError
from lmray.model import (
    Embedding,
    Linear,
    RMSNorm,
    RotaryPositionalEmbedding,
    SwiGLU,
    silu,
    softmax,
)
from tests.devices import DEVICES

TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}
both = pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "fp64"])


def assert_same(ours, reference, inputs):
    """Values and the gradients of every input agree, for a random upstream gradient."""
    upstream = torch.randn_like(reference)
    tolerance = TOLERANCE[reference.dtype]
    torch.testing.assert_close(ours, reference, rtol=10 * tolerance, atol=10 * tolerance)
    for mine, theirs in zip(
        torch.autograd.grad(ours, inputs, upstream),
        torch.autograd.grad(reference, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=10 * tolerance, atol=100 * tolerance)


@both
def test_linear(dtype):
    layer, x = Linear(24, 40, dtype=dtype), torch.randn(3, 5, 24, dtype=dtype, requires_grad=True)
    assert layer.weight.shape == (40, 24)
    assert_same(layer(x), functional.linear(x, layer.weight), (x, layer.weight))


def test_linear_starts_as_a_truncated_glorot_normal():
    torch.manual_seed(0)
    weight = Linear(300, 500).weight.detach()
    std = (2 / 800) ** 0.5
    assert weight.abs().max() <= 3 * std
    # a normal cut at three standard deviations keeps 0.9866 of its own
    assert weight.std() == pytest.approx(0.9866 * std, rel=0.01)
    assert weight.mean().abs() < 0.01 * std


@both
@pytest.mark.parametrize("device", DEVICES)
def test_embedding(dtype, device):
    layer, ids = Embedding(50, 8, device, dtype), torch.randint(50, (4, 30), device=device)
    assert_same(layer(ids), functional.embedding(ids, layer.weight), (layer.weight,))
    assert layer.weight.abs().max() <= 3


@both
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 5, 8)])
def test_rms_norm(dtype, shape, device):
    layer = RMSNorm(8, device=device, dtype=dtype)
    x = torch.randn(shape, dtype=dtype, device=device, requires_grad=True)
    nn.init.normal_(layer.weight)
    reference = functional.rms_norm(x, (8,), layer.weight, eps=1e-5)
    assert_same(layer(x), reference, (x, layer.weight))


def test_rms_norm_of_zeros_is_zero_with_finite_gradients():
    layer, x = RMSNorm(8), torch.zeros(2, 8, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(layer(x), torch.zeros(2, 8))
    assert x.grad.isfinite().all()


def test_rms_norm_computes_in_fp32_and_keeps_the_dtype():
    layer = RMSNorm(64, dtype=torch.bfloat16)
    x = torch.full((1, 64), 3e38, dtype=torch.bfloat16)  # squares overflow, in fp32 as well
    assert layer(x).dtype == torch.bfloat16
    x = torch.randn(7, 64).bfloat16()
    precise = functional.rms_norm(x.float(), (64,), eps=1e-5)
    assert torch.equal(layer(x), precise.bfloat16())


@both
def test_silu_and_swiglu(dtype):
    x = torch.randn(2, 5, 16, dtype=dtype, requires_grad=True)
    assert_same(silu(x), functional.silu(x), (x,))
    layer = SwiGLU(16, 24, dtype=dtype)
    gate, value = functional.linear(x, layer.w1.weight), functional.linear(x, layer.w3.weight)
    reference = functional.linear(functional.silu(gate) * value, layer.w2.weight)
    assert_same(layer(x), reference, (x, layer.w1.weight, layer.w2.weight, layer.w3.weight))


@pytest.mark.parametrize("d_ff", [1, 24, 1344])
def test_swiglu_respects_d_ff(d_ff):
    layer = SwiGLU(16, d_ff)
    shapes = [tuple(matrix.weight.shape) for matrix in (layer.w1, layer.w2, layer.w3)]
    assert shapes == [(d_ff, 16), (16, d_ff), (d_ff, 16)]


@both
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax(dtype, dim):
    x = torch.randn(4, 5, 6, dtype=dtype, requires_grad=True)
    assert_same(softmax(x, dim), torch.softmax(x, dim), (x,))


def test_softmax_of_huge_and_hidden_scores():
    x = torch.tensor([1e4, 1e4 + 1, -torch.inf])
    torch.testing.assert_close(softmax(x, 0), torch.softmax(x, 0))


def rotate(x, positions, theta=10_000.0):
    """The coursework's formula, pair by pair."""
    width, out = x.shape[-1], torch.empty_like(x)
    for pair in range(width // 2):
        angle = positions * theta ** (-2 * pair / width)
        even, odd = x[..., 2 * pair], x[..., 2 * pair + 1]
        out[..., 2 * pair] = even * angle.cos() - odd * angle.sin()
        out[..., 2 * pair + 1] = even * angle.sin() + odd * angle.cos()
    return out


class TestRotaryPositionalEmbedding:
    rope = RotaryPositionalEmbedding(theta=10_000.0, d_k=16, max_seq_len=64)

    def test_equals_the_formula_with_gradients(self):
        x, positions = torch.randn(2, 3, 20, 16, requires_grad=True), torch.arange(20)
        assert_same(self.rope(x, positions), rotate(x, positions), (x,))

    def test_takes_any_positions_also_one_list_for_each_sequence(self):
        positions = torch.stack([torch.arange(5), torch.arange(40, 45)])
        x = torch.randn(2, 5, 16)
        torch.testing.assert_close(self.rope(x, positions), rotate(x, positions))

    def test_takes_transposed_heads(self):
        x = torch.randn(2, 20, 3, 16).transpose(1, 2)
        torch.testing.assert_close(
            self.rope(x, torch.arange(20)), rotate(x.contiguous(), torch.arange(20))
        )

    def test_preserves_norms_and_position_zero(self):
        x = torch.randn(64, 16)
        rotated = self.rope(x, torch.arange(64))
        torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1))
        assert torch.equal(rotated[0], x[0])

    def test_scores_depend_on_the_distance_only(self):
        query, key = torch.randn(2, 1, 16, dtype=torch.float64)
        scores = [
            (self.rope(query, torch.tensor([m])) * self.rope(key, torch.tensor([m - 7]))).sum()
            for m in (7, 20, 63)
        ]
        torch.testing.assert_close(scores[0], scores[1], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(scores[0], scores[2], rtol=1e-6, atol=1e-6)

    def test_angles_stay_precise_far_out(self):
        far = 16_383
        rope = RotaryPositionalEmbedding(theta=10_000.0, d_k=4, max_seq_len=far + 1)
        x = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
        exact = rotate(x.double(), torch.tensor([far], dtype=torch.float64))
        torch.testing.assert_close(rope(x, torch.tensor([far])).double(), exact, rtol=0, atol=1e-6)

    def test_keeps_bf16_and_has_no_state(self):
        x = torch.randn(20, 16).bfloat16()
        assert self.rope(x, torch.arange(20)).dtype == torch.bfloat16
        assert not self.rope.state_dict()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_the_table_stays_as_it_is_when_the_module_is_cast(self, dtype):
        rope = RotaryPositionalEmbedding(theta=10_000.0, d_k=16, max_seq_len=64).to(dtype)
        assert torch.equal(rope.rotations, self.rope.rotations)
        x = torch.randn(20, 16).to(dtype)
        assert torch.equal(rope(x, torch.arange(20)), self.rope(x, torch.arange(20)))

    def test_the_table_moves_with_the_module(self):
        rope = RotaryPositionalEmbedding(theta=10_000.0, d_k=16, max_seq_len=64)
        assert rope.to("meta", torch.bfloat16).rotations.device.type == "meta"

    def test_refuses_an_odd_width(self):
        with pytest.raises(UsageError, match=r"d_k=5 is odd .*; choose an even"):
            RotaryPositionalEmbedding(10_000.0, 5, 8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_rms_norm_under_autocast_has_a_gradient_in_fp32(mode, device):
    """The compiler traces the backward under the forward's autocast."""
    torch.manual_seed(0)
    layer, x = RMSNorm(256).to(device), torch.randn(32, 256, device=device, requires_grad=True)
    layer.weight.data.normal_()
    upstream = torch.randn(32, 256, device=device)
    forward = layer if mode == "eager" else torch.compile(layer, backend="aot_eager")
    with torch.autocast(device, dtype=torch.bfloat16):
        out = forward(x)
    found = torch.autograd.grad(out, (x, layer.weight), upstream)
    precise, gain = x.detach().double().requires_grad_(), layer.weight.detach().double()
    gain.requires_grad_()
    exact = functional.rms_norm(precise, (256,), gain, layer.eps)
    expected = torch.autograd.grad(exact, (precise, gain), upstream.double())
    for mine, its in zip(found, expected, strict=True):
        assert ((mine - its).norm() / its.norm()).item() < 1e-6
