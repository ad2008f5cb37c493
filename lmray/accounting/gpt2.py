"""GPT-2's shapes, and the three different models that go by their names."""

from dataclasses import dataclass
from typing import Literal

from lmray.accounting.flops import forward_flops
from lmray.accounting.parameters import num_parameters
from lmray.config import Budget, Data, Model, Run

SHAPES = {
    "gpt2-small": (12, 768, 12),
    "gpt2-medium": (24, 1024, 16),
    "gpt2-large": (36, 1280, 20),
    "gpt2-xl": (48, 1600, 25),
}
"""Layers, width and heads; the vocabulary is 50,257, the context 1,024, the FFN 4 d_model wide."""

TRAINING_STEPS = 400_000
TRAINING_BATCH = 1024
"""The training that the coursework asks about, on an A100 in fp32 at half its peak."""


@dataclass(frozen=True)
class Variant:
    """One of the models called by a GPT-2 name."""

    name: str
    parameters: int
    forward_flops: int
    """Of one sequence of a full context."""


def gpt2_model(name: str, ffn: Literal["swiglu", "gelu"] = "swiglu", context: int = 1024) -> Model:
    """The coursework's architecture in GPT-2's shape."""
    layers, width, heads = SHAPES[name]
    return Model(
        vocab_size=50_257,
        context_length=context,
        num_layers=layers,
        d_model=width,
        num_heads=heads,
        d_ff=4 * width,
        ffn=ffn,
    )


def gpt2_run(name: str) -> Run:
    """The training that the coursework asks about, of its architecture in GPT-2's shape."""
    model = gpt2_model(name)
    tokens = TRAINING_STEPS * TRAINING_BATCH * model.context_length
    return Run(model=model, data=Data(batch_size=TRAINING_BATCH), budget=Budget(tokens=tokens))


def variants(name: str) -> list[Variant]:
    """The coursework's model, the same with a two-matrix FFN, and the published one."""
    found = []
    for label, ffn in (
        ("SwiGLU of three matrices, untied, RoPE, RMSNorm", "swiglu"),
        ("FFN of two matrices, untied, RoPE, RMSNorm", "gelu"),
    ):
        model = gpt2_model(name, ffn)
        flops = sum(forward_flops(model, model.context_length).values())
        found.append(Variant(label, num_parameters(model), flops))
    # Products with and without biases are alike, and a tied head is a product like any other.
    published = "published: tied, learned positions, LayerNorm, biases"
    return [*found, Variant(published, _published(name), found[-1].forward_flops)]


def _published(name: str) -> int:
    """Radford et al. 2019: (V + S) d + L (12 d^2 + 13 d) + 2 d."""
    layers, d, _ = SHAPES[name]
    # 13 d: four vectors of two LayerNorms, and biases of 3 d, d, 4 d and d.
    return (50_257 + 1024) * d + layers * (12 * d * d + 13 * d) + 2 * d
