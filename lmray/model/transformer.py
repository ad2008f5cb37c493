"""The language model: embeddings, blocks, a final norm and the head.

Letters of shapes: B sequences, T positions, D d_model, E width of keys and values, V vocabulary
size.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lmray import config
from lmray.config import Architecture
from lmray.errors import UsageError
from lmray.model.attention import KeyValueCache, MultiHeadSelfAttention
from lmray.model.feedforward import FeedForward, SwiGLU
from lmray.model.layers import Embedding, Linear, RMSNorm
from lmray.model.rope import RotaryPositionalEmbedding

_COURSEWORK = Architecture()


class TransformerBlock(nn.Module):
    """Attention, then the feed-forward layer, each beside the residual stream."""

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        rope: RotaryPositionalEmbedding | None = None,
        *,
        attention: Literal["math", "sdpa"] = "math",
        architecture: Architecture = _COURSEWORK,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """`rope` and `attention` as in MultiHeadSelfAttention; positions are the caller's."""
        super().__init__()
        self.norm = architecture.norm
        self.ln1 = _norm(self.norm != "none", d_model, device, dtype)
        self.attn = MultiHeadSelfAttention(
            d_model,
            num_heads,
            rope,
            attention=attention,
            num_kv_heads=architecture.num_kv_heads,
            qk_norm=architecture.qk_norm,
            value_gate=architecture.value_embeddings,
            device=device,
            dtype=dtype,
        )
        self.ln2 = _norm(self.norm != "none", d_model, device, dtype)
        if architecture.ffn == "swiglu":
            self.ffn = SwiGLU(d_model, d_ff, device, dtype)
        else:
            self.ffn = FeedForward(d_model, d_ff, architecture.ffn, device, dtype)
        self.ln1_out = _norm(self.norm == "sandwich", d_model, device, dtype)
        self.ln2_out = _norm(self.norm == "sandwich", d_model, device, dtype)
        if architecture.zero_init:
            nn.init.zeros_(self.attn.output_proj.weight)
            nn.init.zeros_(self.ffn.w2.weight)

    def forward(
        self,
        x: Float[Tensor, "... T D"],
        token_positions: Int[Tensor, "... T"] | None = None,
        *,
        embedded_values: Float[Tensor, "... T E"] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "... T D"]:
        """Positions are 0 to T-1 unless given; the rest as in MultiHeadSelfAttention."""

        def attend(x: Tensor) -> Tensor:
            return self.attn(x, token_positions, embedded_values=embedded_values, cache=cache)

        x = self._beside(x, attend, self.ln1, self.ln1_out)
        return self._beside(x, self.ffn, self.ln2, self.ln2_out)

    def _beside(
        self,
        x: Float[Tensor, "... T D"],
        layer: Callable[[Tensor], Tensor],
        norm: nn.Module,
        norm_out: nn.Module,
    ) -> Float[Tensor, "... T D"]:
        """The residual stream after one layer."""
        match self.norm:
            case "post":
                return norm(x + layer(x))
            case "res_post":
                return x + norm(layer(x))
            case _:  # pre, and with nothing for a norm: none; sandwich alone has a norm_out
                return x + norm_out(layer(norm(x)))


def _norm(
    wanted: bool, width: int, device: torch.device | str | None, dtype: torch.dtype | None
) -> nn.Module:
    return RMSNorm(width, device=device, dtype=dtype) if wanted else nn.Identity()


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
        architecture: Architecture = _COURSEWORK,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Draws all weights from torch's global generator.

        torch.manual_seed before it fixes them; a model built on the CPU and then moved has the same
        weights on every device. What a switch adds is drawn last: the rest starts as without it.
        """
        super().__init__()
        self.vocab_size = vocab_size
        self.context_length = context_length
        self.logit_softcap = architecture.logit_softcap
        std = _tied_std(vocab_size, d_model) if architecture.tied_embeddings else 1.0
        self.token_embeddings = Embedding(vocab_size, d_model, device, dtype, std=std)
        rope = None
        if architecture.position == "rope":
            width = d_model // num_heads
            rope = RotaryPositionalEmbedding(rope_theta, width, context_length, device)
        layers = [
            TransformerBlock(
                d_model,
                num_heads,
                d_ff,
                rope,
                attention=attention,
                architecture=architecture,
                device=device,
                dtype=dtype,
            )
            for _ in range(num_layers)
        ]
        self.layers = nn.ModuleList(layers)
        self._kv_shape = (layers[0].attn.num_kv_heads, layers[0].attn.width)
        self.ln_final = _norm(architecture.norm != "none", d_model, device, dtype)
        self.lm_head = (
            None if architecture.tied_embeddings else Linear(d_model, vocab_size, device, dtype)
        )
        self.ln_embedding = _norm(architecture.embedding_norm, d_model, device, dtype)
        self.position_embeddings = self.value_embeddings = self.skip_weights = None
        if architecture.position == "learned":
            self.position_embeddings = Embedding(context_length, d_model, device, dtype, std=std)
        if architecture.value_embeddings:
            kv_width = math.prod(self._kv_shape)
            self.value_embeddings = Embedding(vocab_size, kv_width, device, dtype)
        if architecture.unet_skips:
            ones = torch.ones(num_layers // 2, device=device, dtype=dtype)
            self.skip_weights = nn.Parameter(ones)

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
            architecture=model,
        )

    def forward(
        self,
        token_ids: Int[Tensor, "B T"],
        token_positions: Int[Tensor, "B T"] | None = None,
        *,
        caches: Sequence[KeyValueCache] = (),
    ) -> Float[Tensor, "B T V"]:
        """Unnormalised log-probabilities of the token after each position.

        Positions are 0 to T-1 unless given. With the `caches` of `new_caches` the tokens go on from
        those that earlier calls have seen.

        Raises UsageError for more positions than the context length.
        """
        return self.logits(self.hidden_states(token_ids, token_positions, caches=caches))

    def hidden_states(
        self,
        token_ids: Int[Tensor, "B T"],
        token_positions: Int[Tensor, "B T"] | None = None,
        *,
        caches: Sequence[KeyValueCache] = (),
    ) -> Float[Tensor, "B T D"]:
        """What `logits` reads: the residual stream at its end, normalised. See `forward`."""
        length = token_ids.shape[-1]
        if length > self.context_length:
            raise UsageError(
                f"{length} tokens do not fit context_length={self.context_length}; "
                f"pass the last {self.context_length}, or train a model with a longer context"
            )
        if token_positions is None:
            token_positions = torch.arange(length, device=token_ids.device)
        x = self.token_embeddings(token_ids)
        if self.position_embeddings is not None:
            x = x + self.position_embeddings(token_positions)
        x = self.ln_embedding(x)
        embedded = None if self.value_embeddings is None else self.value_embeddings(token_ids)
        skipped: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            if self.skip_weights is not None:
                mirror = len(self.layers) - 1 - index
                if index < mirror:
                    skipped.append(x)
                elif index > mirror:
                    x = x + self.skip_weights[mirror] * skipped.pop()
            cache = caches[index] if caches else None
            x = layer(x, token_positions, embedded_values=embedded, cache=cache)
        return self.ln_final(x)

    def logits(self, hidden_states: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """The head: one product with a vector for each token, and the soft cap."""
        head = self.token_embeddings if self.lm_head is None else self.lm_head
        logits = hidden_states @ head.weight.T
        if self.logit_softcap == "none":
            return logits
        return self.logit_softcap * torch.tanh(logits / self.logit_softcap)

    def new_caches(self, batch: int, length: int) -> list[KeyValueCache]:
        """Empty caches for `batch` sequences of up to `length` positions."""
        like = self.token_embeddings.weight
        return [KeyValueCache(batch, length, *self._kv_shape, like) for _ in self.layers]


def _tied_std(vocab_size: int, d_model: int) -> float:
    """Standard deviation of an embedding that is the head as well.

    Linear's own, unless a token's product with itself, d_model std where the stream is little more
    than the embedding, would exceed ln(V) / 2. Below that it moves the first loss by 1 / sqrt(V).
    """
    # ln 1 is no scale.
    uniform = math.log(max(vocab_size, 2))
    return min((2 / (vocab_size + d_model)) ** 0.5, uniform / (2 * d_model))
