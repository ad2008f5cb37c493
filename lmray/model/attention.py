"""Causal self-attention, spelled out and by torch's fused kernel, and its cache.

Letters of shapes: B sequences, T positions, S positions a cache holds, D d_model, H heads, G heads
of keys and values, K width of a head, N any number of heads, E the width of all of them.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lmray.errors import UsageError
from lmray.model.causal_attention import causal_attention, computes
from lmray.model.layers import Linear, RMSNorm
from lmray.model.rope import RotaryPositionalEmbedding


def softmax(x: Float[Tensor, "..."], dim: int) -> Float[Tensor, "..."]:
    """exp(x) / sum(exp(x)) along `dim`, after subtracting the maximum so that nothing overflows."""
    exponentials = (x - x.detach().amax(dim, keepdim=True)).exp()
    return exponentials / exponentials.sum(dim, keepdim=True)


def scaled_dot_product_attention(
    Q: Float[Tensor, "... T_q K"],
    K: Float[Tensor, "... T_k K"],
    V: Float[Tensor, "... T_k K_v"],
    mask: Bool[Tensor, "... T_q T_k"] | None = None,
) -> Float[Tensor, "... T_q K_v"]:
    """softmax(Q K^T / sqrt(d_k)) V (Vaswani et al. 2017); a query attends where `mask` is True.

    Without a mask it attends everywhere. A query that may attend nowhere yields NaN.
    """
    scores = Q @ K.mT * K.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return softmax(scores, dim=-1) @ V


class KeyValueCache:
    """One layer's keys and values of the positions seen so far, for sequences of any lengths."""

    def __init__(
        self, batch: int, length: int, num_kv_heads: int, width: int, like: Tensor
    ) -> None:
        """Room for `length` positions, on the device and in the dtype of `like`."""
        self._keys = like.new_zeros(batch, length, num_kv_heads, width)
        self._values = torch.zeros_like(self._keys)

    def extend(
        self,
        k: Float[Tensor, "B G T K"],
        v: Float[Tensor, "B G T K"],
        positions: Int[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B G S K"], Float[Tensor, "B G S K"], Bool[Tensor, "B 1 T S"]]:
        """Writes keys and values at `positions`; returns all of them and what each may attend to.

        That is its own position and those before it, so what lies beyond, be it padding or an
        older text, is never looked at. Shapes do not change from token to token.
        """
        rows = torch.arange(len(positions), device=positions.device).unsqueeze(-1)
        self._keys[rows, positions] = k.transpose(1, 2)
        self._values[rows, positions] = v.transpose(1, 2)
        held = torch.arange(self._keys.shape[1], device=positions.device)
        mask = (held <= positions.unsqueeze(-1)).unsqueeze(1)
        return self._keys.transpose(1, 2), self._values.transpose(1, 2), mask


class MultiHeadSelfAttention(nn.Module):
    """Causal attention of a sequence to itself in `num_heads` subspaces of d_model / num_heads."""

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        rope: RotaryPositionalEmbedding | None = None,
        *,
        attention: Literal["math", "sdpa"] = "math",
        num_kv_heads: int | Literal["auto"] = "auto",
        qk_norm: bool = False,
        value_gate: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Without `rope` positions are not encoded; "sdpa" is "math" in torch's fused kernel.

        Fewer `num_kv_heads` than heads are each shared by a group of neighbouring queries (GQA,
        Ainslie et al. 2023). `qk_norm` normalises queries and keys (Henry et al. 2020);
        `value_gate` prepares for `embedded_values`.
        """
        super().__init__()
        if d_model % num_heads:
            raise UsageError(
                f"d_model={d_model} is not divisible by num_heads={num_heads}; "
                f"choose d_model as a multiple of {num_heads}, or another num_heads"
            )
        kv_heads = num_heads if num_kv_heads == "auto" else num_kv_heads
        if num_heads % kv_heads:
            raise UsageError(
                f"num_heads={num_heads} is not divisible by num_kv_heads={kv_heads}; "
                f"choose a divisor of {num_heads}"
            )
        self.width = d_model // num_heads
        self.num_kv_heads = kv_heads
        self.group = num_heads // kv_heads
        self.rope = rope
        self.attention = attention
        self.q_proj = Linear(d_model, d_model, device, dtype)
        self.k_proj = Linear(d_model, kv_heads * self.width, device, dtype)
        self.v_proj = Linear(d_model, kv_heads * self.width, device, dtype)
        self.output_proj = Linear(d_model, d_model, device, dtype)
        self.q_norm, self.k_norm = (
            RMSNorm(self.width, device=device, dtype=dtype) if qk_norm else nn.Identity()
            for _ in range(2)
        )
        if value_gate:
            self.value_gate = nn.Parameter(torch.full((kv_heads, 1, 1), 0.5).to(device, dtype))

    def forward(
        self,
        x: Float[Tensor, "... T D"],
        token_positions: Int[Tensor, "... T"] | None = None,
        *,
        embedded_values: Float[Tensor, "... T E"] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "... T D"]:
        """Each position attends to itself and all before it; they are 0 to T-1 unless given.

        `embedded_values` are added to the values by a learned gate for each head. With a `cache`
        a position also attends to those before it that the cache has seen.
        """
        if token_positions is None:
            token_positions = torch.arange(x.shape[-2], device=x.device)
        q, k, v = self.queries_keys_values(x, token_positions)
        if embedded_values is not None:
            v = v + self.value_gate * self._heads(embedded_values)
        mask = None
        if cache is not None:
            k, v, mask = cache.extend(k, v, token_positions.expand(x.shape[:-1]))
        return self.output_proj(self._attend(q, k, v, mask).transpose(-3, -2).flatten(-2))

    def queries_keys_values(
        self, x: Float[Tensor, "... T D"], token_positions: Int[Tensor, "... T"]
    ) -> tuple[Float[Tensor, "... H T K"], Float[Tensor, "... G T K"], Float[Tensor, "... G T K"]]:
        """Queries and keys as they are compared, normalised and rotated, and projected values."""
        # One product instead of three: joining the matrices costs T times less than multiplying.
        matrices: list[Tensor] = [self.q_proj.weight, self.k_proj.weight, self.v_proj.weight]
        joined = x @ torch.cat(matrices).T
        q, k, v = (self._heads(part) for part in joined.split([len(m) for m in matrices], -1))
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rope is not None:
            positions = token_positions.unsqueeze(-2)  # the same in every head
            q, k = self.rope(q, positions), self.rope(k, positions)
        return q, k, v

    def _heads(self, x: Float[Tensor, "... T E"]) -> Float[Tensor, "... N T K"]:
        return x.unflatten(-1, (-1, self.width)).transpose(-3, -2)

    def _attend(
        self,
        q: Float[Tensor, "... H T K"],
        k: Float[Tensor, "... G S K"],
        v: Float[Tensor, "... G S K"],
        mask: Bool[Tensor, "... 1 T S"] | None,
    ) -> Float[Tensor, "... H T K"]:
        """Without a mask S is T and attention is causal."""
        fused = self.attention == "sdpa"
        if fused and mask is None and computes(q, k, v):
            return causal_attention(q, k, v)
        # Of a GPU's fused kernels the one for fp32 has no groups; without it scores are T by T.
        shares = fused and not (q.is_cuda and q.dtype == torch.float32)
        if self.group > 1 and not shares:
            k, v = (part.repeat_interleave(self.group, dim=-3) for part in (k, v))
        if fused:
            return functional.scaled_dot_product_attention(
                q, k, v, mask, is_causal=mask is None, enable_gqa=k.shape[-3] < q.shape[-3]
            )
        if mask is None:
            mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
        return scaled_dot_product_attention(q, k, v, mask)
