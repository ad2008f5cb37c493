"""The model's section: its sizes and every switch of its architecture."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lmray.config.section import Count, Section


class Architecture(Section):
    """What kind of Transformer a model is; the defaults are the coursework's."""

    norm: Literal["pre", "post", "res_post", "sandwich", "none"] = "pre"
    """Where RMSNorm stands around attention and FFN f: pre is x + f(norm(x)), post is norm(x +
    f(x)), res_post is x + norm(f(x)), sandwich is x + norm(f(norm(x))); none has no final one
    either."""
    position: Literal["rope", "none", "learned"] = "rope"
    """How a token's place is told: rotated queries and keys, not at all, or an added vector."""
    ffn: Literal["swiglu", "silu", "gelu", "relu2"] = "swiglu"
    """swiglu has three matrices, the others two around that function; relu2 is max(0, x)^2."""
    num_kv_heads: Count | Literal["auto"] = "auto"
    """Heads of keys and values, shared by groups of query heads (GQA); auto is num_heads."""
    tied_embeddings: bool = False
    """The head is the token embedding."""
    qk_norm: bool = False
    """RMSNorm over each head's queries and keys, before they are rotated."""
    logit_softcap: Annotated[float, Field(gt=0)] | Literal["none"] = "none"
    """Logits become c tanh(logits / c)."""
    zero_init: bool = False
    """The matrices that write to the residual stream start at zero: each block is the identity."""
    embedding_norm: bool = False
    """RMSNorm after the embedding."""
    value_embeddings: bool = False
    """A second embedding of the tokens, added to the values of every layer by a gate per head."""
    unet_skips: bool = False
    """Weighted skips from the input of layer i to the input of layer L - 1 - i."""

    def departures(self) -> dict[str, Any]:
        """The switches that are not at their defaults."""
        fields = Architecture.model_fields
        values = {name: getattr(self, name) for name in fields}
        return {name: value for name, value in values.items() if value != fields[name].default}


class Model(Architecture):
    """The sizes of a decoder-only Transformer, and its architecture."""

    vocab_size: Count = 10_000
    """Token ids the model knows; equal to the tokenizer's vocabulary."""
    context_length: Count = 256
    """Tokens a training window holds."""
    num_layers: Count = 4
    """Transformer blocks."""
    d_model: Count = 512
    """Width of the residual stream."""
    num_heads: Count = 16
    """Attention heads; each is d_model / num_heads wide."""
    d_ff: Count | Literal["auto"] = "auto"
    """Width inside the FFN; auto is 8/3 d_model to the nearest multiple of 64, and half as much
    again for an FFN of two matrices, which then has as many parameters as SwiGLU."""
    rope_theta: Annotated[float, Field(gt=1)] = 10_000.0
    """Base of the rotary wavelengths."""
    attention: Literal["math", "sdpa"] = "sdpa"
    """math spells attention out; sdpa is torch's fused kernel of the same function."""

    @property
    def ffn_width(self) -> int:
        """The number that d_ff stands for.

        At 8/3 d_model, three matrices cost what the two of a plain FFN of 4 d_model cost.
        """
        if self.d_ff != "auto":
            return self.d_ff
        gated = max(64, round(self.d_model * 8 / 3 / 64) * 64)
        return gated if self.ffn == "swiglu" else gated * 3 // 2

    @property
    def kv_heads(self) -> int:
        """The number that num_kv_heads stands for."""
        return self.num_heads if self.num_kv_heads == "auto" else self.num_kv_heads

    def experiment(self) -> dict[str, Any]:
        """What enters the run id: the sizes, with auto as numbers, and `departures`.

        A switch at its default is left out, so that ids outlive the switches that came after them.
        """
        switches = self.departures() | {"num_kv_heads": self.kv_heads}
        if self.kv_heads == self.num_heads:
            del switches["num_kv_heads"]
        sizes = self.model_dump(exclude=set(Architecture.model_fields))
        return {**sizes, **switches, "d_ff": self.ffn_width}

    @model_validator(mode="after")
    def _heads_fit(self) -> "Model":
        if self.d_model % self.num_heads:
            raise ValueError(
                f"model.d_model={self.d_model} is not divisible by model.num_heads="
                f"{self.num_heads}; make it a multiple of {self.num_heads} or change num_heads"
            )
        if self.position == "rope" and (self.d_model // self.num_heads) % 2:
            raise ValueError(
                f"model.d_model={self.d_model} / model.num_heads={self.num_heads} is an odd head "
                f"width and RoPE rotates pairs; make it even"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"model.num_heads={self.num_heads} is not divisible by model.num_kv_heads="
                f"{self.num_kv_heads}; choose a divisor of {self.num_heads} or auto"
            )
        if self.unet_skips and self.num_layers < 2:
            raise ValueError(
                f"model.unet_skips=true joins pairs of layers and model.num_layers="
                f"{self.num_layers}; give it at least 2 layers or set unet_skips=false"
            )
        return self
