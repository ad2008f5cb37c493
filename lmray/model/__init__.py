"""The Transformer language model and its loss, from scratch, under the coursework's names."""

from lmray.model.attention import (
    KeyValueCache,
    MultiHeadSelfAttention,
    scaled_dot_product_attention,
    softmax,
)
from lmray.model.attention_logits import max_attention_logits
from lmray.model.feedforward import FeedForward, SwiGLU, gelu, relu2, silu
from lmray.model.layers import Embedding, Linear, RMSNorm
from lmray.model.loss import cross_entropy
from lmray.model.rope import RotaryPositionalEmbedding
from lmray.model.transformer import TransformerBlock, TransformerLM

__all__ = [
    "Embedding",
    "FeedForward",
    "KeyValueCache",
    "Linear",
    "MultiHeadSelfAttention",
    "RMSNorm",
    "RotaryPositionalEmbedding",
    "SwiGLU",
    "TransformerBlock",
    "TransformerLM",
    "cross_entropy",
    "gelu",
    "max_attention_logits",
    "relu2",
    "scaled_dot_product_attention",
    "silu",
    "softmax",
]
