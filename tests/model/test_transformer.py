"""The whole model: its size, its names, its start, and that it never looks ahead."""

import math
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from lmray import presets
from lmray.config import Model
from lmray.errors import UsageError
from lmray.model import TransformerBlock, TransformerLM, cross_entropy

TINY = Model(vocab_size=64, context_length=16, num_layers=2, d_model=32, num_heads=4, d_ff=48)


def build(model=TINY, *, seed=0, **changes):
    torch.manual_seed(seed)
    return TransformerLM.from_config(model.model_copy(update=changes))


# FIGURES of the coursework's write-ups, section 1
@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (presets.base_ts().model, 22_696_448),
        (presets.base_owt().model, 45_224_448),
        (presets.a_ts().model, 35_938_816),
        (presets.a_owt_tied().model, 42_082_816),
    ],
    ids=["base_ts", "base_owt", "a_ts", "a_owt_tied"],
)
def test_parameter_counts(model, parameters):
    with torch.device("meta"):
        lm = TransformerLM.from_config(model)
    assert sum(p.numel() for p in lm.parameters()) == parameters
    if model == presets.base_ts().model:
        in_blocks = sum(p.numel() for p in lm.layers.parameters())
        assert in_blocks == 12_455_936
        assert parameters - lm.token_embeddings.weight.numel() == 17_576_448


def test_state_dict_has_the_courseworks_names_and_shapes():
    block = {
        "attn.q_proj": (32, 32),
        "attn.k_proj": (32, 32),
        "attn.v_proj": (32, 32),
        "attn.output_proj": (32, 32),
        "ln1": (32,),
        "ln2": (32,),
        "ffn.w1": (48, 32),
        "ffn.w2": (32, 48),
        "ffn.w3": (48, 32),
    }
    expected = {f"layers.{i}.{name}.weight": block[name] for i in (0, 1) for name in block}
    expected |= {
        "token_embeddings.weight": (64, 32),
        "ln_final.weight": (32,),
        "lm_head.weight": (64, 32),
    }
    assert {name: tuple(t.shape) for name, t in build().state_dict().items()} == expected


def test_state_dict_loads_into_a_fresh_model():
    model, other, ids = build(seed=0), build(seed=1), torch.randint(64, (2, 16))
    assert not torch.allclose(model(ids), other(ids))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(ids), other(ids))


def reference_logits(weights, ids, *, num_layers, num_heads):
    """The same network in torch's functions, read from the state dict."""

    def norm(x, name):
        return functional.rms_norm(x, x.shape[-1:], weights[f"{name}.weight"], eps=1e-5)

    def linear(x, name):
        return functional.linear(x, weights[f"{name}.weight"])

    def heads(x):
        return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)

    def rotate(x):
        width, positions = x.shape[-1], torch.arange(x.shape[-2])
        frequencies = 10_000.0 ** -(torch.arange(0, width, 2) / width)
        angles = positions[:, None] * frequencies
        even, odd = x[..., ::2], x[..., 1::2]
        pairs = (even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos())
        return torch.stack(pairs, -1).flatten(-2)

    x = functional.embedding(ids, weights["token_embeddings.weight"])
    for i in range(num_layers):
        layer = f"layers.{i}"
        y = norm(x, f"{layer}.ln1")
        q, k, v = (heads(linear(y, f"{layer}.attn.{name}_proj")) for name in "qkv")
        y = functional.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
        x = x + linear(y.transpose(1, 2).flatten(-2), f"{layer}.attn.output_proj")
        y = norm(x, f"{layer}.ln2")
        gated = functional.silu(linear(y, f"{layer}.ffn.w1")) * linear(y, f"{layer}.ffn.w3")
        x = x + linear(gated, f"{layer}.ffn.w2")
    return linear(norm(x, "ln_final"), "lm_head")


@pytest.mark.parametrize("kernel", ["math", "sdpa"])
def test_equals_the_reference_network_with_gradients(kernel):
    model, ids = build(attention=kernel), torch.randint(64, (3, 17))
    weights = {k: v.clone().requires_grad_() for k, v in model.state_dict().items()}
    ours = model(ids[:, :-1])
    reference = reference_logits(weights, ids[:, :-1], num_layers=2, num_heads=4)
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)
    cross_entropy(ours, ids[:, 1:]).backward()
    functional.cross_entropy(reference.flatten(0, 1), ids[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 15, 16])
def test_takes_any_length_up_to_the_context(length):
    assert build()(torch.randint(64, (3, length))).shape == (3, length, 64)


def test_refuses_more_than_the_context():
    with pytest.raises(UsageError, match=r"17 tokens do not fit context_length=16; pass the last"):
        build()(torch.zeros(1, 17, dtype=torch.int64))


def test_never_looks_ahead():
    model, ids = build(), torch.randint(64, (1, 16))
    changed = ids.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 64
    torch.testing.assert_close(model(ids)[:, :9], model(changed)[:, :9], rtol=0, atol=1e-6)


def test_weights_depend_on_the_seed_alone():
    first = build(seed=5).state_dict()
    torch.rand(17)
    again, other = build(seed=5).state_dict(), build(seed=6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_first_loss_is_near_that_of_guessing():
    config = presets.tiny().model
    model, length = build(config), config.context_length
    ids = torch.randint(config.vocab_size, (4096 // length, length + 1))
    with torch.no_grad():
        loss = cross_entropy(model(ids[:, :-1]), ids[:, 1:]).item()
    assert loss == pytest.approx(math.log(config.vocab_size), rel=0.01)


def test_bf16_weights_give_bf16_logits():
    model = TransformerLM(64, 16, 32, 2, 4, 48, 10_000.0, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    ids = torch.randint(64, (2, 17))
    logits = model(ids[:, :-1])
    assert logits.dtype == torch.bfloat16
    cross_entropy(logits, ids[:, 1:]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_model_that_is_cast_to_bf16_computes_as_one_that_was_made_so():
    made = TransformerLM(64, 16, 32, 2, 4, 48, 10_000.0, dtype=torch.bfloat16)
    cast = TransformerLM(64, 16, 32, 2, 4, 48, 10_000.0).bfloat16()
    cast.load_state_dict(made.state_dict())
    ids = torch.randint(64, (2, 16))
    assert torch.equal(cast(ids), made(ids))


def test_block_is_pre_norm():
    torch.manual_seed(0)
    block, x = TransformerBlock(32, 4, 48), torch.randn(2, 5, 32)
    middle = x + block.attn(block.ln1(x))
    torch.testing.assert_close(block(x), middle + block.ffn(block.ln2(middle)))


CHECKED = """
import pytest, torch
from jaxtyping import TypeCheckError, install_import_hook
modules = ["lmray.model", "lmray.training.clipping", "lmray.generation"]
with install_import_hook(modules, "beartype.beartype"):
    from lmray.generation import generate
    from lmray.model import TransformerLM, cross_entropy
    from lmray.training.clipping import clip_gradient_norm
ids = torch.randint(64, (2, 17))
for attention in ("math", "sdpa"):
    model = TransformerLM(64, 16, 32, 2, 4, 48, 10_000.0, attention=attention)
    cross_entropy(model(ids[:, :-1]), ids[:, 1:]).backward()
    clip_gradient_norm(model.parameters(), 1.0)
    assert len(generate(model, [1, 2], 3, 0.8, 0.9)) == 3
with pytest.raises(TypeCheckError):
    cross_entropy(torch.zeros(2, 16, 64), ids)
with pytest.raises(TypeCheckError):
    model(ids.float())
"""


def test_the_shapes_in_the_signatures_hold_at_run_time():
    """In a fresh interpreter, since the hook must come before the first import."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHECKED], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
