"""Floating-point operations of a model and of AdamW; a multiply and an add are two.

Only matrix products are counted, as torch.utils.flop_counter does: an m x k by k x n product is
2 m k n. Causal attention is counted over all pairs, which is what its products compute.
"""

from lmray.accounting.parameters import ffn_matrices, kv_width, num_parameters
from lmray.config import BatchShape, Model

ADAMW_FLOPS = 14
"""AdamW's operations on a parameter in a step: 1 for the decay, 3 for the mean, 4 for the mean of
squares, 3 for the denominator, 3 for the update."""


def forward_flops(model: Model, tokens: int) -> dict[str, int]:
    """Operations of a forward pass over one sequence of `tokens`, by matrix product."""
    d, layers = model.d_model, model.num_layers
    pairs = 2 * layers * tokens * tokens * d
    return {
        "qkvo projections": 2 * layers * tokens * 2 * d * (d + kv_width(model)),
        "attention scores": pairs,
        "attention values": pairs,
        "ffn": 2 * layers * tokens * ffn_matrices(model) * d * model.ffn_width,
        "head": 2 * tokens * d * model.vocab_size,
    }


def step_flops(model: Model, batch: BatchShape) -> int:
    """Operations of training on one batch: forward, and twice that backward."""
    return batch.sequences * 3 * sum(forward_flops(model, batch.length).values())


def training_flops(model: Model, tokens: int) -> int:
    """Operations of training on `tokens`, in whole windows of the model's context length."""
    window = step_flops(model, BatchShape(1, model.context_length))
    return window * tokens // model.context_length


def six_n_d(num_parameters: int, tokens: int) -> int:
    """The rule of thumb for `training_flops` (Kaplan et al. 2020): 6 a parameter and token."""
    return 6 * num_parameters * tokens


def optimizer_flops(model: Model) -> int:
    """Operations of one step of AdamW."""
    return ADAMW_FLOPS * num_parameters(model)
