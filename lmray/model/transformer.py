"""The language model: embeddings, pre-norm blocks, a final norm and the head.

Letters of shapes: B sequences, T positions, D d_model, V vocabulary size.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lmray import config
from lmray.errors import UsageError
from lmray.model.attention import MultiHeadSelfAttention, RotaryPositionalEmbedding
from lmray.model.layers import Embedding, Linear, RMSNorm, SwiGLU


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + ffn(norm(x)): the pre-norm block."""

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        rope: RotaryPositionalEmbedding | None = None,
        *,
        attention: Literal["math", "sdpa"] = "math",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """`rope` and `attention` as in MultiHeadSelfAttention."""
        super().__init__()
        self.ln1 = RMSNorm(d_model, device=device, dtype=dtype)
        self.attn = MultiHeadSelfAttention(
            d_model, num_heads, rope, attention=attention, device=device, dtype=dtype
        )
        self.ln2 = RMSNorm(d_model, device=device, dtype=dtype)
        self.ffn = SwiGLU(d_model, d_ff, device, dtype)

    def forward(
        self, x: Float[Tensor, "... T D"], token_positions: Int[Tensor, "... T"] | None = None
    ) -> Float[Tensor, "... T D"]:
        """Positions are 0 to T-1 unless given."""
        x = x + self.attn(self.ln1(x), token_positions)
        return x + self.ffn(self.ln2(x))


class TransformerLM(nn.Module):
    """A decoder-only Transformer that scores the next token at every position."""

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        d_model: int,
        num_layers: int,
        num_heads: int,
        d_ff: int,
        rope_theta: float,
        *,
        attention: Literal["math", "sdpa"] = "math",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Draws all weights from torch's global generator.

        torch.manual_seed before it fixes them; a model built on the CPU and then moved has the same
        weights on every device.
        """
        super().__init__()
        self.context_length = context_length
        self.token_embeddings = Embedding(vocab_size, d_model, device, dtype)
        rope = RotaryPositionalEmbedding(rope_theta, d_model // num_heads, context_length, device)
        self.layers = nn.ModuleList(
            TransformerBlock(
                d_model, num_heads, d_ff, rope, attention=attention, device=device, dtype=dtype
            )
            for _ in range(num_layers)
        )
        self.ln_final = RMSNorm(d_model, device=device, dtype=dtype)
        self.lm_head = Linear(d_model, vocab_size, device, dtype)

    @classmethod
    def from_config(cls, model: config.Model) -> "TransformerLM":
        """The model that a configuration describes, in fp32 on the CPU."""
        return cls(
            vocab_size=model.vocab_size,
            context_length=model.context_length,
            d_model=model.d_model,
            num_layers=model.num_layers,
            num_heads=model.num_heads,
            d_ff=model.ffn_width,
            rope_theta=model.rope_theta,
            attention=model.attention,
        )

    def forward(self, token_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Unnormalised log-probabilities of the token after each position.

        Raises UsageError for more positions than the context length.
        """
        length = token_ids.shape[-1]
        if length > self.context_length:
            raise UsageError(
                f"{length} tokens do not fit context_length={self.context_length}; "
                f"pass the last {self.context_length}, or train a model with a longer context"
            )
        token_positions = torch.arange(length, device=token_ids.device)
        x = self.token_embeddings(token_ids)
        for layer in self.layers:
            x = layer(x, token_positions)
        return self.lm_head(self.ln_final(x))
