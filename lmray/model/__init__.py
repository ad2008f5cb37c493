"""The Transformer language model and its loss, from scratch, under the coursework's names."""

from lmray.model.attention import (
    MultiHeadSelfAttention,
    RotaryPositionalEmbedding,
    scaled_dot_product_attention,
    softmax,
)
from lmray.model.layers import Embedding, Linear, RMSNorm, SwiGLU, silu
from lmray.model.loss import cross_entropy
from lmray.model.transformer import TransformerBlock, TransformerLM

__all__ = [
    "Embedding",
    "Linear",
    "MultiHeadSelfAttention",
    "RMSNorm",
    "RotaryPositionalEmbedding",
    "SwiGLU",
    "TransformerBlock",
    "TransformerLM",
    "cross_entropy",
    "scaled_dot_product_attention",
    "silu",
    "softmax",
]
