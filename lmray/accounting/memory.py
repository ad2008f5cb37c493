"""Bytes that training with AdamW in fp32 holds: for each parameter, and for each sequence.

The activations are what this very implementation keeps for the backward pass. Another one keeps
others: fused kernels fewer, autograd on the same formulas more.

Not among them: while a checkpoint is being written, the host holds a copy of weights and moments,
three times the weights. On a CPU that is memory of the training's own.

Letters of formulas: n positions of a sequence, d width, e width of keys and values.
"""

from dataclasses import dataclass

from lmray.accounting.parameters import kv_width, num_parameters
from lmray.config import Model
from lmray.errors import PreflightError

_FLOAT = 4


@dataclass(frozen=True)
class Memory:
    """Bytes by item."""

    fixed: dict[str, int]
    """Whatever the batch."""
    per_sequence: dict[str, int]
    """For each sequence of a full context in the batch."""

    def total(self, batch: int) -> int:
        """Bytes at a batch of that many sequences: all items at once, an upper estimate.

        (The gradients are complete when most activations are gone.)
        """
        return sum(self.fixed.values()) + batch * sum(self.per_sequence.values())

    def largest_batch(self, memory: int) -> int:
        """Sequences that fit `memory` bytes.

        Raises PreflightError if not even one does.
        """
        batch = (memory - sum(self.fixed.values())) // sum(self.per_sequence.values())
        if batch < 1:
            raise PreflightError(
                f"training takes {self.total(1):,} bytes at a batch of one sequence and there are "
                f"{memory:,}; choose a smaller model or context, or more memory"
            )
        return batch


def training_memory(model: Model) -> Memory:
    """What AdamW training in fp32 holds."""
    parameters, layers = num_parameters(model), model.num_layers
    n, d = model.context_length, model.d_model
    fixed = {
        "weights": parameters,
        "gradients": parameters,
        "first moments": parameters,
        "second moments": parameters,
        "joined q, k and v matrices": layers * (d + 2 * kv_width(model)) * d,
    }
    if model.position == "rope":
        fixed["rotations"] = layers * 2 * n * d // model.num_heads
    if model.position == "learned":
        fixed["positions"] = 2 * n
    if model.attention == "math":
        fixed["causal masks"] = layers * n * n // _FLOAT  # bytes of booleans
    block_norms = {"none": 0, "sandwich": 4}.get(model.norm, 2)
    block = _attention(model) | {
        "inputs of attention and ffn": 2 * n * d,
        "norms": block_norms * n * (d + 1),  # what was normalised, and its scale
        # swiglu: gate, sigmoid, silu, value, product; silu: input, sigmoid, output; gelu: input,
        # scaled input, distribution, output; relu2: max(0, x), output
        "ffn": {"swiglu": 5, "silu": 3, "gelu": 4, "relu2": 2}[model.ffn] * n * model.ffn_width,
    }
    # Where the stream itself is what a layer reads, it is kept already.
    kept = model.norm not in ("pre", "sandwich")
    vocabulary = n * model.vocab_size
    once = {
        "token ids": 4 * n,  # inputs and targets of 64 bits
        "embedding norm": n * (d + 1) if model.embedding_norm else 0,
        "embedded values": n * kv_width(model) if model.value_embeddings else 0,
        "skipped": n * d * (layers // 2) if model.unet_skips and not kept else 0,
        "final norm": n * (d + 1) if model.norm != "none" else 0,
        "input of the head": n * d,
        "capped logits": vocabulary if model.logit_softcap != "none" else 0,
        "exponentials of the logits": vocabulary + n,
        "logits, then their gradient": vocabulary,
    }
    per_sequence = {name: layers * count for name, count in block.items()} | once
    return Memory(_bytes(fixed), _bytes(per_sequence))


def _attention(model: Model) -> dict[str, int]:
    """Numbers that one attention layer keeps of a sequence, its input aside."""
    n, d, e = model.context_length, model.d_model, kv_width(model)
    rotated = model.position == "rope"
    kept = {"attention output": n * d}
    if model.qk_norm:
        scales = n * (model.num_heads + model.kv_heads)
        kept["normalised queries and keys"] = n * (d + e) + scales
    if model.attention == "math":
        # Products copy their heads one behind the other, shared ones as often as they are shared.
        kept["queries, keys and values"] = 3 * n * d
        weights = n * n * model.num_heads
        kept["exponentials of the scores"] = weights + n * model.num_heads
        kept["attention weights"] = weights
        return kept
    # One tensor holds all three and is kept whole while one of them is read.
    if not (model.value_embeddings and (rotated or model.qk_norm)):
        kept["queries, keys and values"] = n * (d + 2 * e)
    if rotated or model.qk_norm:
        kept["queries and keys as compared"] = n * (d + e)
    if model.value_embeddings:
        kept["gated values"] = n * e
    kept["log-sum-exp"] = n * model.num_heads
    return kept


def _bytes(counts: dict[str, int]) -> dict[str, int]:
    return {name: count * _FLOAT for name, count in counts.items() if count}
