"""Every switch of the architecture, and all of them together, against torch's own functions."""

import math

import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional

from lmray import presets
from lmray.config import Architecture, Model
from lmray.errors import UsageError
from lmray.model import (
    FeedForward,
    MultiHeadSelfAttention,
    TransformerBlock,
    TransformerLM,
    cross_entropy,
    gelu,
    relu2,
)
from tests.model.architectures import ONE_SWITCH, SWITCHES, models, small


def build(model, *, seed=0, scale=1.0):
    """The model in fp64; `scale` moves norms, gates and skips off the ones they start at."""
    torch.manual_seed(seed)
    lm = TransformerLM.from_config(model).double()
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.dim() != 2:
                parameter.mul_(1 + scale * torch.rand_like(parameter))
    return lm


def reference_logits(weights, ids, model):
    """The network that the configuration describes, in torch's functions, layer by layer."""
    width, length = model.d_model // model.num_heads, ids.shape[1]
    pre = model.norm in ("pre", "sandwich")

    def linear(x, name):
        return functional.linear(x, weights[f"{name}.weight"])

    def norm(x, name):
        return functional.rms_norm(x, x.shape[-1:], weights[f"{name}.weight"], eps=1e-5)

    def heads(x):
        return x.unflatten(-1, (-1, width)).transpose(1, 2)

    def rotate(x):
        exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
        frequencies = model.rope_theta**-exponents
        angles = torch.arange(length)[:, None] * frequencies
        turned = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)  # as the table is
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * turned).flatten(-2)

    def attend(x, name):
        q, k, v = (heads(linear(x, f"{name}.{part}_proj")) for part in "qkv")
        if model.value_embeddings:
            extra = functional.embedding(ids, weights["value_embeddings.weight"])
            v = v + weights[f"{name}.value_gate"] * heads(extra)
        if model.qk_norm:
            q, k = norm(q, f"{name}.q_norm"), norm(k, f"{name}.k_norm")
        if model.position == "rope":
            q, k = rotate(q), rotate(k)
        shared = model.num_heads // k.shape[1]
        k, v = (torch.stack([part] * shared, 2).flatten(1, 2) for part in (k, v))
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return linear(out.transpose(1, 2).flatten(-2), f"{name}.output_proj")

    def feed_forward(x, name):
        inner = linear(x, f"{name}.w1")
        if model.ffn == "swiglu":
            inner = functional.silu(inner) * linear(x, f"{name}.w3")
        elif model.ffn == "relu2":
            inner = functional.relu(inner) ** 2
        else:
            inner = getattr(functional, model.ffn)(inner)
        return linear(inner, f"{name}.w2")

    x = functional.embedding(ids, weights["token_embeddings.weight"])
    if model.position == "learned":
        x = x + weights["position_embeddings.weight"][:length]
    if model.embedding_norm:
        x = norm(x, "ln_embedding")
    inputs = {}
    for i in range(model.num_layers):
        mirror = model.num_layers - 1 - i
        if model.unet_skips and mirror < i:
            x = x + weights["skip_weights"][mirror] * inputs[mirror]
        inputs[i] = x
        for part, layer, ln in (("attn", attend, "ln1"), ("ffn", feed_forward, "ln2")):
            out = layer(norm(x, f"layers.{i}.{ln}") if pre else x, f"layers.{i}.{part}")
            if model.norm == "post":
                x = norm(x + out, f"layers.{i}.{ln}")
            elif model.norm == "res_post":
                x = x + norm(out, f"layers.{i}.{ln}")
            elif model.norm == "sandwich":
                x = x + norm(out, f"layers.{i}.{ln}_out")
            else:
                x = x + out
    if model.norm != "none":
        x = norm(x, "ln_final")
    head = "token_embeddings" if model.tied_embeddings else "lm_head"
    logits = linear(x, head)
    cap = model.logit_softcap
    return logits if cap == "none" else cap * torch.tanh(logits / cap)


def assert_equals_the_reference(model):
    lm = build(model)
    ids = torch.randint(model.vocab_size, (2, model.context_length + 1))
    weights = {name: w.clone().requires_grad_() for name, w in lm.state_dict().items()}
    ours = lm(ids[:, :-1])
    theirs = reference_logits(weights, ids[:, :-1], model)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    cross_entropy(ours, ids[:, 1:]).backward()
    functional.cross_entropy(theirs.flatten(0, 1), ids[:, 1:].flatten()).backward()
    gradients = {name: (p.grad, weights[name].grad) for name, p in lm.named_parameters()}
    largest = max(theirs.abs().max().item() for _, theirs in gradients.values())
    for mine, theirs in gradients.values():
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10 * (1 + largest))


def test_every_switch_is_tested_here():
    assert set(SWITCHES) == set(Architecture.model_fields)


@pytest.mark.parametrize("attention", ["math", "sdpa"])
@pytest.mark.parametrize("changes", ONE_SWITCH, ids=str)
def test_a_switch_gives_the_network_it_names(changes, attention):
    assert_equals_the_reference(small(attention=attention, **changes))


@settings(max_examples=25)
@given(models())
def test_switches_combine(model):
    assert_equals_the_reference(model)


@pytest.mark.parametrize(
    ("ours", "reference"),
    [(gelu, functional.gelu), (relu2, lambda x: functional.relu(x) ** 2)],
)
def test_activations(ours, reference):
    x = torch.linspace(-6, 6, 101, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), reference(x))
    mine, theirs = (torch.autograd.grad(f(x).sum(), x)[0] for f in (ours, reference))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("d_ff", [1, 40])
def test_a_plain_ffn_respects_d_ff(d_ff):
    layer = FeedForward(16, d_ff, "gelu")
    assert {name: tuple(w.shape) for name, w in layer.named_parameters()} == {
        "w1.weight": (d_ff, 16),
        "w2.weight": (16, d_ff),
    }


def test_nope_removes_positions_and_nothing_else():
    """A write-up's NoPE variant moved the norms as well."""
    rope, nope = build(small()), build(small(position="none"))
    ours, theirs = nope.state_dict(), rope.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # With every rotation by nothing, the one is the other.
    for layer in rope.layers:
        layer.attn.rope.rotations[..., 0], layer.attn.rope.rotations[..., 1] = 1, 0
    ids = torch.randint(64, (2, 12))
    torch.testing.assert_close(nope(ids), rope(ids))


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("post", lambda block, x: block.ln1(x + block.attn(x))),
        ("res_post", lambda block, x: x + block.ln1(block.attn(x))),
        ("sandwich", lambda block, x: x + block.ln1_out(block.attn(block.ln1(x)))),
        ("none", lambda block, x: x + block.attn(x)),
    ],
)
def test_where_the_norm_stands(norm, expected):
    """Two write-ups call x + norm(f(x)) post-norm; it is norm(x + f(x))."""
    torch.manual_seed(0)
    block, x = TransformerBlock(32, 4, 48, architecture=Architecture(norm=norm)), torch.randn(5, 32)
    torch.nn.init.zeros_(block.ffn.w2.weight)
    y = expected(block, x)
    torch.testing.assert_close(block(x), block.ln2(y) if norm == "post" else y)
    if norm == "post":
        torch.testing.assert_close(block(x).square().mean(-1), torch.ones(5), rtol=1e-4, atol=0)


def first_loss(model, tokens=512):
    torch.manual_seed(0)
    lm = TransformerLM.from_config(model)
    length = min(model.context_length, 256)
    ids = torch.randint(model.vocab_size, (tokens // length, length + 1))
    with torch.no_grad():
        return cross_entropy(lm(ids[:, :-1]), ids[:, 1:]).item()


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"zero_init": True}, {"embedding_norm": True, "zero_init": True}, {"norm": "post"}],
    ids=str,
)
def test_the_first_loss_of_the_base_is_that_of_guessing(tied, changes):
    """Tied to an embedding of standard deviation 1 it was some hundred nats in a write-up."""
    model = Model(**presets.base_ts().model.model_dump() | changes | {"tied_embeddings": tied})
    assert first_loss(model) == pytest.approx(math.log(10_000), rel=0.01)


def test_the_first_loss_of_a_wide_tied_model_is_that_of_guessing():
    """Blocks that start as the identity leave the embedding, and a token would score itself."""
    leaders = {"qk_norm": True, "logit_softcap": 15, "zero_init": True, "embedding_norm": True}
    model = Model(
        vocab_size=8000, num_layers=1, d_model=1280, num_heads=20, tied_embeddings=True, **leaders
    )
    assert first_loss(model, tokens=256) == pytest.approx(math.log(8000), rel=0.01)


def test_a_tied_model_has_one_matrix_and_no_head():
    lm = build(small(tied_embeddings=True))
    assert lm.lm_head is None
    assert "lm_head.weight" not in lm.state_dict()
    lm(torch.zeros(1, 3, dtype=torch.int64))[..., 7].sum().backward()
    grad = lm.token_embeddings.weight.grad
    assert grad[7].abs().sum() > 0  # as the head
    assert grad[0].abs().sum() > 0  # as the embedding


@pytest.mark.parametrize("changes", ONE_SWITCH[1:], ids=str)
def test_what_a_switch_does_not_touch_starts_as_without_it(changes):
    torch.manual_seed(0)
    base = TransformerLM.from_config(small()).state_dict()
    torch.manual_seed(0)
    other = TransformerLM.from_config(small(**changes)).state_dict()
    blocks = {name for name in other if name in base and other[name].shape == base[name].shape}
    if "ffn" in changes or "num_kv_heads" in changes:  # they draw fewer numbers on the way
        blocks = {"token_embeddings.weight", "layers.0.attn.q_proj.weight"}
    if "tied_embeddings" in changes:
        blocks.remove("token_embeddings.weight")
    if "zero_init" in changes:
        zeroed = {name for name in blocks if name.endswith(("output_proj.weight", "w2.weight"))}
        assert len(zeroed) == 6
        assert not any(other[name].any() for name in zeroed)
        blocks -= zeroed
    assert all(torch.equal(other[name], base[name]) for name in blocks)


def test_attention_refuses_groups_that_do_not_divide_its_heads():
    with pytest.raises(UsageError, match=r"num_heads=4 is not divisible by num_kv_heads=3; choose"):
        MultiHeadSelfAttention(32, 4, num_kv_heads=3)
