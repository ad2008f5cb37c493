"""What a model costs, from its configuration alone."""

from lmray.config import Model


def num_parameters(model: Model) -> int:
    """Parameters of the TransformerLM described: 2 V d + L (4 d^2 + 3 d d_ff + 2 d) + d."""
    d, embeddings = model.d_model, 2 * model.vocab_size * model.d_model
    block = 4 * d * d + 3 * d * model.ffn_width + 2 * d
    return embeddings + model.num_layers * block + d
