"""Small models of every architecture."""

from typing import Any

from hypothesis import strategies as st

from lmray.config import Model
from lmray.model.huggingface_config import FAMILIES

SMALL = {"vocab_size": 64, "context_length": 12, "num_layers": 3, "d_model": 32, "num_heads": 4}

SWITCHES: dict[str, list[Any]] = {
    "norm": ["pre", "post", "res_post", "sandwich", "none"],
    "position": ["rope", "none", "learned"],
    "ffn": ["swiglu", "silu", "gelu", "relu2"],
    "num_kv_heads": ["auto", 1, 2],
    "tied_embeddings": [False, True],
    "qk_norm": [False, True],
    "logit_softcap": ["none", 0.5],
    "zero_init": [False, True],
    "embedding_norm": [False, True],
    "value_embeddings": [False, True],
    "unet_skips": [False, True],
}

ONE_SWITCH = [{}] + [{name: v} for name, values in SWITCHES.items() for v in values[1:]]
"""The default, and every architecture one switch away from it."""


def small(**changes: Any) -> Model:
    return Model(**(SMALL | {"d_ff": 48} | changes))


def models() -> st.SearchStrategy[Model]:
    """Any combination of switches and sizes."""
    switches = {name: st.sampled_from(values) for name, values in SWITCHES.items()}
    sizes = {
        "vocab_size": st.integers(1, 80),
        "context_length": st.integers(1, 12),
        "num_layers": st.integers(2, 5),
        "d_model": st.sampled_from([16, 24, 32]),
        "num_heads": st.sampled_from([2, 4]),
        "d_ff": st.sampled_from(["auto", 1, 40]),
    }
    return st.fixed_dictionaries(switches | sizes).map(lambda values: Model(**values))


def exportable() -> st.SearchStrategy[Model]:
    """Any model that an architecture of Hugging Face's computes."""
    switches: dict[str, st.SearchStrategy[Any]] = {
        name: st.sampled_from(SWITCHES[name])
        for name in ("num_kv_heads", "tied_embeddings", "zero_init")
    }
    sizes = {
        "vocab_size": st.integers(2, 80),
        "context_length": st.integers(1, 12),
        "num_layers": st.integers(1, 4),
        "d_model": st.sampled_from([16, 24, 32]),
        "num_heads": st.sampled_from([2, 4]),
        "d_ff": st.sampled_from(["auto", 1, 40]),
        "rope_theta": st.sampled_from([100.0, 10_000.0, 500_000.0]),
    }
    families = st.sampled_from([family.switches for family in FAMILIES])
    values = st.tuples(st.fixed_dictionaries(switches | sizes), families)
    return values.map(lambda drawn: Model(**drawn[0], **drawn[1]))
