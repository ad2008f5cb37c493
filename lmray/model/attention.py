"""Causal self-attention with rotary positions, spelled out and by torch's fused kernel.

Letters of shapes: T positions, D d_model, H heads, K width of a head.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lmray.errors import UsageError
from lmray.model.layers import Linear


class RotaryPositionalEmbedding(nn.Module):
    """Rotates the pair (x[2i], x[2i+1]) by position * theta^(-2i/d_k) (RoFormer, Su et al. 2021).

    The product of a rotated query and a rotated key depends only on how far apart they stand.
    """

    def __init__(
        self,
        theta: float,
        d_k: int,
        max_seq_len: int,
        device: torch.device | str | None = None,
    ) -> None:
        """Tabulates positions 0 to max_seq_len - 1; the table is not part of the state dict."""
        super().__init__()
        if d_k % 2:
            raise UsageError(f"d_k={d_k} is odd and RoPE rotates pairs; choose an even head width")
        # In fp64: the error of an fp32 angle grows with the position, to 0.001 rad at 16,384.
        frequencies = theta ** -(torch.arange(0, d_k, 2, dtype=torch.float64, device=device) / d_k)
        angles = torch.arange(max_seq_len, dtype=torch.float64, device=device).outer(frequencies)
        rotations = torch.stack((angles.cos(), angles.sin()), dim=-1).float()
        self.register_buffer("rotations", rotations, persistent=False)

    def forward(
        self, x: Float[Tensor, "... T K"], token_positions: Int[Tensor, "... T"]
    ) -> Float[Tensor, "... T K"]:
        """Rotates in fp32 (fp64 for fp64 input); the positions broadcast against all but K."""
        # One complex product: sines and cosines on strided halves take seven times as long on a
        # CPU (forward and backward, 2,048 tokens of 4 heads, 2 threads, 2026-11).
        pairs = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2))
        rotations = torch.view_as_complex(self.rotations[token_positions])
        rotated = torch.view_as_real(torch.view_as_complex(pairs) * rotations)
        return rotated.flatten(-2).to(x.dtype)


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


class MultiHeadSelfAttention(nn.Module):
    """Causal attention of a sequence to itself in `num_heads` subspaces of d_model / num_heads."""

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        rope: RotaryPositionalEmbedding | None = None,
        *,
        attention: Literal["math", "sdpa"] = "math",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Without `rope` positions are not encoded; "sdpa" is "math" in torch's fused kernel."""
        super().__init__()
        if d_model % num_heads:
            raise UsageError(
                f"d_model={d_model} is not divisible by num_heads={num_heads}; "
                f"choose d_model as a multiple of {num_heads}, or another num_heads"
            )
        self.num_heads = num_heads
        self.rope = rope
        self.attention = attention
        self.q_proj = Linear(d_model, d_model, device, dtype)
        self.k_proj = Linear(d_model, d_model, device, dtype)
        self.v_proj = Linear(d_model, d_model, device, dtype)
        self.output_proj = Linear(d_model, d_model, device, dtype)

    def forward(
        self, x: Float[Tensor, "... T D"], token_positions: Int[Tensor, "... T"] | None = None
    ) -> Float[Tensor, "... T D"]:
        """Each position attends to itself and all before it; they are 0 to T-1 unless given."""
        if token_positions is None:
            token_positions = torch.arange(x.shape[-2], device=x.device)
        # One product instead of three: joining the matrices costs T times less than multiplying.
        joined = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight))
        heads = (x @ joined.T).unflatten(-1, (3, self.num_heads, -1))  # (..., T, 3, H, K)
        q, k, v = heads.movedim(-4, -2).unbind(-4)  # each (..., H, T, K)
        if self.rope is not None:
            positions = token_positions.unsqueeze(-2)  # the same in every head
            q, k = self.rope(q, positions), self.rope(k, positions)
        return self.output_proj(self._attend(q, k, v).transpose(-3, -2).flatten(-2))

    def _attend(
        self,
        q: Float[Tensor, "... H T K"],
        k: Float[Tensor, "... H T K"],
        v: Float[Tensor, "... H T K"],
    ) -> Float[Tensor, "... H T K"]:
        if self.attention == "sdpa":
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        causal = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
        return scaled_dot_product_attention(q, k, v, causal)
