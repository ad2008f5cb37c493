"""Weights between lmray's names and Hugging Face's: the same numbers, RoPE's in another order.

Letters of shapes: H heads, K width of a head, D d_model.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from lmray.config import Model
from lmray.errors import CorruptionError
from lmray.model.huggingface_config import Family, family_of
from lmray.model.transformer import TransformerLM

_WHOLE = {
    "token_embeddings": "model.embed_tokens",
    "ln_final": "model.norm",
    "lm_head": "lm_head",
}
_BLOCK = {
    "attn.q_proj": "self_attn.q_proj",
    "attn.k_proj": "self_attn.k_proj",
    "attn.v_proj": "self_attn.v_proj",
    "attn.output_proj": "self_attn.o_proj",
    "attn.q_norm": "self_attn.q_norm",
    "attn.k_norm": "self_attn.k_norm",
    "ffn.w1": "mlp.gate_proj",
    "ffn.w2": "mlp.down_proj",
    "ffn.w3": "mlp.up_proj",
}


def to_huggingface(model: Model, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of lmray's model as that of Hugging Face's.

    Raises PreflightError as `family_of`.
    """
    family = family_of(model)
    tensors = {}
    for name, weight in state.items():
        heads = _rotated_heads(model, family, name)
        tensors[_translated(family, name)] = _halves(weight, heads) if heads else weight
    if family.joined_ffn:
        for layer in range(model.num_layers):
            gate, up, joined = _ffn_names(layer)
            tensors[joined] = torch.cat((tensors.pop(gate), tensors.pop(up)))
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def from_huggingface(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of lmray's model from that of Hugging Face's.

    Raises CorruptionError for a tensor that is missing, of another shape, or not the model's.
    """
    family = family_of(model)
    given = dict(tensors)
    if family.joined_ffn:
        for layer in range(model.num_layers):
            gate, up, joined = _ffn_names(layer)
            if joined in given:
                given[gate], given[up] = given.pop(joined).chunk(2)
    head, embedding = (f"{_WHOLE[part]}.weight" for part in ("lm_head", "token_embeddings"))
    if model.tied_embeddings and {head, embedding} <= given.keys():
        if torch.equal(given[head], given[embedding]):  # some files hold a tied matrix twice
            del given[head]
    with torch.device("meta"):
        expected = TransformerLM.from_config(model).state_dict()
    state = {}
    for name, like in expected.items():
        theirs = _translated(family, name)
        weight = given.pop(theirs, torch.empty(0))
        if weight.shape != like.shape:
            found = f"the shape {tuple(weight.shape)}" if weight.numel() else "nothing"
            raise CorruptionError(
                f"{theirs} has {found} and the model of config.json needs {tuple(like.shape)}; "
                f"fetch both files again"
            )
        heads = _rotated_heads(model, family, name)
        state[name] = (_neighbours(weight, heads) if heads else weight).contiguous()
    if given:
        raise CorruptionError(
            f"{min(given)} is no tensor of the model that config.json describes; use the "
            f"config.json that belongs to the weights"
        )
    return state


def _translated(family: Family, name: str) -> str:
    part = name.removesuffix(".weight")
    if part in _WHOLE:
        return f"{_WHOLE[part]}.weight"
    _, layer, part = part.split(".", 2)
    return f"model.layers.{layer}.{(_BLOCK | family.norms)[part]}.weight"


def _ffn_names(layer: int) -> tuple[str, str, str]:
    """The two matrices that read a feed-forward layer's input, and both as one."""
    parts = ("gate_proj", "up_proj", "gate_up_proj")
    gate, up, joined = (f"model.layers.{layer}.mlp.{part}.weight" for part in parts)
    return gate, up, joined


def _rotated_heads(model: Model, family: Family, name: str) -> int:
    """Heads along a weight's first dimension whose K rotates in pairs; 0 where none does."""
    if model.position != "rope" or not family.halves:
        return 0
    counts = {"q_proj": model.num_heads, "k_proj": model.kv_heads, "q_norm": 1, "k_norm": 1}
    return counts.get(name.removesuffix(".weight").rpartition(".")[2], 0)


def _halves(weight: Float[Tensor, "HK ..."], heads: int) -> Float[Tensor, "HK ..."]:
    """From neighbouring pairs, (x0, x1), (x2, x3) ..., to one of each pair in either half."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _neighbours(weight: Float[Tensor, "HK ..."], heads: int) -> Float[Tensor, "HK ..."]:
    """Back from `_halves`."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
