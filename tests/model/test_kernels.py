"""A CPU's kernels against torch's operations in fp64, for every size, and when they are used."""

from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from lmray.model import RMSNorm, cross_entropy
from lmray.model.causal_attention import causal_attention, computes
from lmray.model.feedforward import gated_silu
from lmray.native import tensors


@contextmanager
def torch_threads(number):
    """So many for any work, however little."""
    before, worth = torch.get_num_threads(), tensors._WORTH_A_THREAD
    torch.set_num_threads(number)
    tensors._WORTH_A_THREAD = 1
    try:
        yield
    finally:
        torch.set_num_threads(before)
        tensors._WORTH_A_THREAD = worth


def results(function, leaves, precise):
    """What it returns, and its gradients towards a drawn direction."""
    dtype = torch.float64 if precise else torch.float32
    leaves = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
    out = function(*leaves)
    torch.manual_seed(1)
    upstream = torch.randn(out.shape).to(dtype)
    return [out, *torch.autograd.grad(out, leaves, upstream)]


def assert_near(ours, reference, leaves, atol=2e-5):
    for mine, exact in zip(
        results(ours, leaves, False), results(reference, leaves, True), strict=True
    ):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine.double(), exact, rtol=1e-5, atol=atol)


def heads(batch, heads, length, width, *, joined):
    """As a model has them: parts of one product, or tensors of their own."""
    counts = [heads * width, heads * width, heads * width]
    if joined:
        parts = torch.randn(batch, length, sum(counts)).split(counts, -1)
        return [part.unflatten(-1, (heads, width)).transpose(1, 2) for part in parts]
    return [torch.randn(batch, heads, length, width) for _ in range(3)]


def attended(q, k, v):
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 100),
    st.sampled_from([16, 32, 48, 64, 128]),
    st.integers(1, 3),
)
def test_attention_of_every_size(batch, kv_heads, group, length, width, threads):
    torch.manual_seed(length)
    q = torch.randn(batch, kv_heads * group, length, width)
    k, v = torch.randn(2, batch, kv_heads, length, width)
    assert computes(q, k, v)
    with torch_threads(threads):
        assert_near(causal_attention, attended, [q, k, v])


@pytest.mark.parametrize("joined", [True, False])
def test_attention_reads_heads_where_they_lie(joined):
    torch.manual_seed(0)
    leaves = heads(2, 4, 33, 32, joined=joined)
    ours = causal_attention(*leaves)
    torch.testing.assert_close(ours, attended(*leaves), rtol=1e-5, atol=1e-5)
    assert ours.transpose(1, 2).is_contiguous()


def test_attention_with_scores_of_any_size():
    torch.manual_seed(0)
    q, k, v = heads(1, 2, 40, 32, joined=False)
    assert_near(causal_attention, attended, [30 * q, 30 * k, v], atol=2e-2)


def test_no_position_sees_a_later_one_not_even_in_its_last_bit():
    torch.manual_seed(0)
    q, k, v = heads(1, 2, 40, 32, joined=False)
    before = causal_attention(q, k, v)
    for position in (1, 2, 3, 16, 39):
        other = [x.clone() for x in (q, k, v)]
        for x in other:
            x[:, :, position:] = 7
        assert torch.equal(causal_attention(*other)[:, :, :position], before[:, :, :position])


def test_what_is_no_number_is_not_hidden():
    q, k, v = heads(1, 1, 20, 32, joined=False)
    q[0, 0, 8, 5] = torch.nan
    seen = causal_attention(q, k, v).isnan().any(-1)[0, 0]
    assert seen.tolist() == [position == 8 for position in range(20)]
    logits = torch.zeros(3, 40)
    logits[1, 39], logits[2, 0] = torch.nan, torch.inf
    losses = cross_entropy(logits, torch.zeros(3, dtype=torch.int64), reduction="none")
    assert losses.isnan().tolist() == [False, True, True]
    gated = gated_silu(torch.tensor([1.0, torch.nan, -torch.inf, torch.inf]), torch.ones(4))
    assert gated.isfinite().tolist() == [True, False, False, False]


def test_the_same_bits_for_any_number_of_threads():
    torch.manual_seed(0)
    leaves = heads(3, 4, 50, 32, joined=False)
    found = []
    for threads in (1, 2, 3):
        with torch_threads(threads):
            found.append(results(causal_attention, leaves, False))
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 70), st.integers(1, 3))
def test_normalisation_of_every_size(rows, width, threads):
    torch.manual_seed(width)
    x, gain = torch.randn(rows, width), torch.randn(width)

    def reference(x, gain):
        return functional.rms_norm(x, [width], gain, 1e-5)

    def ours(x, gain):
        norm = RMSNorm(width)
        return torch.func.functional_call(norm, {"weight": gain}, (x,))

    with torch_threads(threads):
        assert_near(ours, reference, [x, gain])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 3))
def test_a_gate_of_every_size(size, threads):
    torch.manual_seed(size)
    gate, value = 5 * torch.randn(size), torch.randn(size)
    with torch_threads(threads):
        assert_near(gated_silu, lambda gate, value: functional.silu(gate) * value, [gate, value])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gate_is_differentiated_twice(dtype):
    """As sharpness by autograd does, and as no kernel could without saying so."""
    torch.manual_seed(0)
    gate, value, direction = torch.randn(3, 20, dtype=dtype)
    found = []
    for function in (gated_silu, lambda gate, value: functional.silu(gate) * value):
        leaves = gate.clone().requires_grad_(), value.clone().requires_grad_()
        loss = function(*leaves).square().sum()
        gradients = torch.autograd.grad(loss, leaves, create_graph=True)
        again = sum((gradient * direction).sum() for gradient in gradients)
        found.append(torch.autograd.grad(again, leaves))
    torch.testing.assert_close(*found)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 70), st.sampled_from([1, 100, 1e4]), st.integers(1, 3))
def test_a_loss_of_every_size(rows, vocabulary, size, threads):
    torch.manual_seed(vocabulary)
    logits, targets = size * torch.randn(rows, vocabulary), torch.randint(vocabulary, (rows,))
    with torch_threads(threads):
        assert_near(
            lambda logits: cross_entropy(logits, targets, reduction="none"),
            lambda logits: functional.cross_entropy(logits, targets, reduction="none"),
            [logits],
            atol=2e-5 * size,
        )


def test_little_work_is_not_shared_out():
    with torch_threads(3):
        tensors._WORTH_A_THREAD = 100
        parts = []
        tensors.in_parts(lambda *part: parts.append(part), 10, numbers=25)
        assert sorted(parts) == [(0, 5), (5, 10)]


def test_kernels_are_for_single_precision_on_a_cpu():
    x = torch.ones(3)
    assert tensors.usable(x)
    assert not tensors.usable(x, x.double())
    assert not tensors.usable(x.bfloat16())
    assert not tensors.usable(x.to("meta"))
    assert not tensors.usable(x[:0])
    with FlopCounterMode(display=False):
        assert not tensors.usable(x)
    assert not computes(*torch.ones(3, 1, 1, 4, 24))  # lanes are sixteen
    assert not computes(*torch.ones(3, 1, 1, 1025, 16))


def test_what_does_not_fit_together_is_left_to_torch():
    """A kernel would read beyond the smaller one."""
    gate, value = torch.randn(4, 8), torch.randn(8)
    leaves = [gate, value]
    assert_near(gated_silu, lambda gate, value: functional.silu(gate) * value, leaves)
    with pytest.raises(RuntimeError, match="must match the size"):
        gated_silu(gate, torch.randn(3))
    with pytest.raises(RuntimeError, match="must match the size"):
        RMSNorm(8)(torch.randn(4, 16))
