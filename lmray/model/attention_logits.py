"""How large attention's logits are: the first thing to grow where a training will diverge.

Letters of shapes: B sequences, T positions, D d_model, H heads, L layers.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmray.model.attention import MultiHeadSelfAttention
from lmray.model.transformer import TransformerLM

_PIECE = 1 << 24
"""Logits held at once: 64 MiB."""


def max_attention_logits(
    model: TransformerLM, token_ids: Int[Tensor, "B T"]
) -> Float[Tensor, " L"]:
    """The largest q k / sqrt(d_k) of each layer, over heads and the pairs that attend, in fp32.

    Costs a forward pass without the head, and the products of queries and keys once more, where it
    is called; nothing elsewhere. Waits for no device.
    """
    found: list[Tensor] = []

    def look(attention: MultiHeadSelfAttention, arguments: tuple[Tensor, Tensor]) -> None:
        found.append(_max_logit(attention, *arguments))

    layers = [layer for layer in model.modules() if isinstance(layer, MultiHeadSelfAttention)]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        with torch.no_grad():
            model.hidden_states(token_ids)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(found)


def _max_logit(
    attention: MultiHeadSelfAttention, x: Float[Tensor, "B T D"], positions: Int[Tensor, " T"]
) -> Float[Tensor, ""]:
    q, k, _ = attention.queries_keys_values(x, positions)
    k = k.repeat_interleave(attention.group, dim=-3).float()
    batch, heads, length, width = q.shape
    rows = max(1, _PIECE // (batch * heads * length))
    largest = []
    with torch.autocast(x.device.type, enabled=False):
        for start in range(0, length, rows):
            part = q[..., start : start + rows, :].float() * width**-0.5
            seen = k[..., : start + rows, :]
            logits = part @ seen.mT  # (B, H, rows, keys up to the last of them)
            later = torch.ones_like(logits[0, 0], dtype=torch.bool).triu(start + 1)
            largest.append(logits.masked_fill_(later, float("-inf")).amax())
    return torch.stack(largest).amax()
