"""The same weights in Hugging Face's models give the same logits, where transformers is there."""

import pytest
import torch

from lmray.model import TransformerLM
from tests.model.architectures import small

transformers = pytest.importorskip("transformers")


def halves(weight, heads):
    """Rows of a projection from RoPE's neighbouring pairs to Hugging Face's two halves."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def sizes(model):
    return {
        "vocab_size": model.vocab_size,
        "hidden_size": model.d_model,
        "intermediate_size": model.ffn_width,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.d_model // model.num_heads,
        "max_position_embeddings": model.context_length,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": model.tied_embeddings,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
    }


NAMES = {
    "attn.q_proj": "self_attn.q_proj",
    "attn.k_proj": "self_attn.k_proj",
    "attn.v_proj": "self_attn.v_proj",
    "attn.output_proj": "self_attn.o_proj",
    "attn.q_norm": "self_attn.q_norm",
    "attn.k_norm": "self_attn.k_norm",
    "ffn.w1": "mlp.gate_proj",
    "ffn.w2": "mlp.down_proj",
    "ffn.w3": "mlp.up_proj",
    "ln1": "input_layernorm",
    "ln2": "post_attention_layernorm",
    "token_embeddings": "model.embed_tokens",
    "ln_final": "model.norm",
    "lm_head": "lm_head",
}


def translated(lm, model):
    found = {}
    for name, weight in lm.state_dict().items():
        place, _, rest = name.removesuffix(".weight").rpartition("layers.")
        index, _, part = rest.partition(".") if name.startswith("layers.") else ("", "", rest)
        if part in ("attn.q_proj", "attn.q_norm"):
            weight = halves(weight, 1 if part.endswith("norm") else model.num_heads)
        if part in ("attn.k_proj", "attn.k_norm"):
            weight = halves(weight, 1 if part.endswith("norm") else model.kv_heads)
        assert place == ""
        prefix = f"model.layers.{index}." if index else ""
        found[f"{prefix}{NAMES[part]}.weight"] = weight
    return found


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("Llama", {}),
        ("Llama", {"num_kv_heads": 2}),
        ("Llama", {"num_kv_heads": 1, "tied_embeddings": True, "rope_theta": 500.0}),
        ("Qwen3", {"qk_norm": True, "num_kv_heads": 2}),
    ],
    ids=str,
)
def test_logits_equal_those_of_hugging_face(family, changes):
    model = small(**changes)
    torch.manual_seed(0)
    lm = TransformerLM.from_config(model)
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.dim() == 1:
                parameter.mul_(1 + torch.rand_like(parameter))
    config = getattr(transformers, f"{family}Config")(**sizes(model))
    reference = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    missing, unexpected = reference.load_state_dict(translated(lm, model), strict=False)
    assert not unexpected
    assert missing == (["lm_head.weight"] if model.tied_embeddings else [])
    ids = torch.randint(model.vocab_size, (2, 12))
    with torch.no_grad():
        torch.testing.assert_close(lm(ids), reference(ids).logits, rtol=1e-4, atol=1e-5)
