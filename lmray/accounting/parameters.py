"""How many numbers a model learns, by component.

Letters of formulas: V vocabulary, S context, L layers, d width, e width of keys and values, f FFN.
"""

from typing import Literal

from lmray.config import Model


def parameters(model: Model) -> dict[str, int]:
    """Parameters of the model described, by component; a component it does not have is 0."""
    d, e, f = model.d_model, kv_width(model), model.ffn_width
    blocks, vocabulary = model.num_layers, model.vocab_size
    norms_of_a_block = {"none": 0, "sandwich": 4}.get(model.norm, 2)
    final_norm, embedding_norm = int(model.norm != "none"), int(model.embedding_norm)
    return {
        "token embedding": vocabulary * d,
        "position embedding": model.context_length * d if model.position == "learned" else 0,
        "value embedding": vocabulary * e if model.value_embeddings else 0,
        "attention": blocks * 2 * d * (d + e),
        "ffn": blocks * ffn_matrices(model) * d * f,
        "norms": (blocks * norms_of_a_block + final_norm + embedding_norm) * d,
        "query and key norms": blocks * 2 * (d // model.num_heads) if model.qk_norm else 0,
        "value gates": blocks * model.kv_heads if model.value_embeddings else 0,
        "skips": blocks // 2 if model.unet_skips else 0,
        "head": 0 if model.tied_embeddings else vocabulary * d,
    }


def num_parameters(model: Model) -> int:
    """All parameters; a matrix that is tied counts once."""
    return sum(parameters(model).values())


def ffn_matrices(model: Model) -> int:
    """Matrices of a feed-forward layer."""
    return 3 if model.ffn == "swiglu" else 2


def kv_width(model: Model) -> int:
    """Width of all keys, or values, of a position."""
    return model.d_model // model.num_heads * model.kv_heads


def over_swiglu(model: Model, d_ff: int | Literal["auto"] = "auto") -> int:
    """Parameters that the model has more than the same one with a SwiGLU of that width."""
    baseline = Model(**model.model_dump() | {"ffn": "swiglu", "d_ff": d_ff})
    return num_parameters(model) - num_parameters(baseline)
