"""Bytes that training with AdamW holds: for each parameter, and for each sequence.

The activations are what this very implementation keeps for the backward pass. Another one keeps
others: fused kernels fewer, autograd on the same formulas more.

Under autocast the list is that of a CPU. A GPU's also takes exponentials and squares in fp32, so
that attention=math and ffn=relu2 keep more there.

Not listed: what a kernel, the loss or the optimizer needs for a moment; and while a checkpoint is
being written, the host's copy of weights and moments, three times the weights. On a CPU that is
memory of the training's own, and so are the gradients once more while its threads share a batch.

Letters of formulas: n positions of a sequence, d width, e width of keys and values.
"""

from dataclasses import dataclass
from typing import Literal

from lmray.accounting.parameters import ffn_matrices, kv_width, num_parameters
from lmray.config import Model
from lmray.errors import PreflightError

Precision = Literal["fp32", "tf32", "bf16", "bf16_weights"]
"""As optim.precision; tf32 holds what fp32 holds."""

_FP32, _BF16, _INT64 = 4, 2, 8


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


def training_memory(model: Model, precision: Precision = "fp32") -> Memory:
    """What AdamW training holds."""
    parameters, layers = num_parameters(model), model.num_layers
    n, d, width = model.context_length, model.d_model, model.d_model // model.num_heads
    low = precision in ("bf16", "bf16_weights")
    # Bytes of a number that products read and write, and of one of weights and residual stream.
    factor = _BF16 if low else _FP32
    stored = _BF16 if precision == "bf16_weights" else _FP32
    fixed = {
        "weights": parameters * stored,
        "gradients": parameters * stored,
        "first moments": parameters * _FP32,
        "second moments": parameters * _FP32,
        "fp32 copies of the weights": parameters * _FP32 if stored == _BF16 else 0,
        "bf16 copies of the matrices": _multiplied(model) * _BF16 if factor < stored else 0,
        "joined q, k and v matrices": layers * (d + 2 * kv_width(model)) * d * factor,
        "rotations": layers * 2 * n * width * _FP32 if model.position == "rope" else 0,
        "positions": n * _INT64 if model.position == "learned" else 0,
        "causal masks": layers * n * n if model.attention == "math" else 0,  # booleans
    }
    norm = n * (d + 1) * _FP32  # what was normalised, and its scale
    # Autocast rounds what a product reads each time: twice for the two of SwiGLU.
    readers = 2 if factor == stored or model.ffn != "swiglu" else 3
    block = _attention(model, factor) | {
        "inputs of attention and ffn": readers * n * d * factor,
        "norms": {"none": 0, "sandwich": 4}.get(model.norm, 2) * norm,
        # swiglu: gate, value, product; silu and gelu: input, output; relu2: max(0, x), output
        "ffn": {"swiglu": 3, "silu": 2, "gelu": 2, "relu2": 2}[model.ffn]
        * (n * model.ffn_width * factor),
    }
    # Where the stream itself is what a layer reads, it is kept already.
    kept = model.norm not in ("pre", "sandwich") and factor == stored
    once = {
        "token ids": 2 * n * _INT64,  # inputs and targets
        "embedding norm": norm if model.embedding_norm else 0,
        "embedded values": n * kv_width(model) * stored if model.value_embeddings else 0,
        "skipped": n * d * (layers // 2) * stored if model.unet_skips and not kept else 0,
        "final norm": norm if model.norm != "none" else 0,
        "input of the head": n * d * factor,
        **_loss(model, low=low),
    }
    per_sequence = {name: layers * count for name, count in block.items()} | once
    return Memory(_present(fixed), _present(per_sequence))


def _multiplied(model: Model) -> int:
    """Parameters of matrices that products read; q, k and v are joined first."""
    d = model.d_model
    block = d * d + ffn_matrices(model) * d * model.ffn_width
    return model.num_layers * block + model.vocab_size * d


def _attention(model: Model, factor: int) -> dict[str, int]:
    """Bytes that one attention layer keeps of a sequence, its input aside."""
    n, d, e = model.context_length, model.d_model, kv_width(model)
    rotated = model.position == "rope"
    kept = {"attention output": n * d * factor}
    if model.qk_norm:
        scales = n * (model.num_heads + model.kv_heads)
        kept["normalised queries and keys"] = (n * (d + e) + scales) * _FP32
    if model.attention == "math":
        # Products copy their heads one behind the other, shared ones as often as they are shared.
        kept["queries, keys and values"] = 3 * n * d * factor
        weights = n * n * model.num_heads
        kept["exponentials of the scores"] = (weights + n * model.num_heads) * factor
        kept["attention weights"] = weights * factor
        return kept
    # One tensor holds all three and is kept whole while one of them is read.
    if not (model.value_embeddings and (rotated or model.qk_norm)):
        kept["queries, keys and values"] = n * (d + 2 * e) * factor
    if rotated or model.qk_norm:
        kept["queries and keys as compared"] = n * (d + e) * factor
    if model.value_embeddings:
        kept["gated values"] = n * e * factor
    kept["log-sum-exp"] = n * model.num_heads * _FP32
    return kept


def _loss(model: Model, *, low: bool) -> dict[str, int]:
    """Bytes for the logits of a sequence: bf16 ones are kept, of others their exponentials.

    (Or those themselves and a number a row, by a CPU's kernel: as many bytes.)
    """
    n, vocabulary = model.context_length, model.context_length * model.vocab_size
    capped = model.logit_softcap != "none"
    if low:
        return {
            "capped logits": vocabulary * _BF16 if capped else 0,
            "logits": vocabulary * _BF16,
            "log-sum-exp of the logits": n * _FP32,
            "gradient of the logits": vocabulary * _BF16,
        }
    return {
        "capped logits": vocabulary * _FP32 if capped else 0,
        "exponentials of the logits": (vocabulary + n) * _FP32,
        "logits, then their gradient": vocabulary * _FP32,
    }


def _present(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
