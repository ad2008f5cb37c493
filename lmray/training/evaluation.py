"""Validation: the loss on fixed windows of a split, the same windows at every call.

Letters of shapes: B windows, T positions.
"""

import math
import sys
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import nn

from lmray.errors import PreflightError, UsageError
from lmray.model import cross_entropy
from lmray.progress import Progress, silent


class Tokens(Protocol):
    """What evaluation reads; lmray.dataset.TokenDataset is one."""

    token_bytes: Int[np.ndarray, " V"]
    """UTF-8 bytes that each token id spells."""

    def __len__(self) -> int:
        """Tokens of the split."""

    def read(self, start: int, stop: int) -> Int[np.ndarray, " N"]:
        """Token ids at positions [start, stop)."""


@dataclass(frozen=True)
class Validation:
    """How well a model predicts a text. A model with NaN among its outputs has NaN in all three."""

    loss: float
    """Mean cross-entropy in nats per token."""
    perplexity: float
    """exp(loss), or the largest float where that overflows, for JSON has no infinity."""
    bits_per_byte: float
    """Cross-entropy of the text in bits over its length in UTF-8 bytes: comparable across
    tokenizers."""
    tokens: int
    """Targets scored."""
    bytes: int
    """UTF-8 bytes that these targets spell."""
    context_length: int
    """Tokens a window holds: the most that a prediction may look back on."""


def evaluate(
    model: nn.Module,
    dataset: Tokens,
    *,
    context_length: int,
    batch_size: int,
    max_tokens: int | Literal["all"],
    device: torch.device | str,
    progress: Progress = silent,
) -> Validation:
    """Scores the windows [i T, i T + T) of `dataset`, each target being the token after its input.

    "all" scores every token but the first exactly once, in a shorter last window where need be; a
    number scores the first floor(max_tokens / T) full windows, as many as there are. Sums are in
    fp64. Under torch.distributed every rank calls this, takes each world-size-th batch and returns
    the same numbers; `model` is then the bare module, since ranks may differ by one forward pass.

    Raises UsageError if max_tokens is less than a window, PreflightError if the split is.
    """
    spans = _spans(len(dataset), context_length, batch_size, max_tokens)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    # nats, targets and bytes; the latter are exact in fp64 up to 2^53
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start, stop in spans[rank::world]:
                sums += _score(model, dataset, start, stop, context_length, device)
                progress("evaluate", stop, spans[-1][1], "tokens")
    finally:
        model.train(was_training)
    if world > 1:
        dist.all_reduce(sums)
    nats, tokens, text_bytes = sums.tolist()
    loss = nats / tokens
    return Validation(
        loss=loss,
        perplexity=sys.float_info.max if loss > _LARGEST_EXPONENT else math.exp(loss),
        bits_per_byte=nats / math.log(2) / text_bytes,
        tokens=int(tokens),
        bytes=int(text_bytes),
        context_length=context_length,
    )


_LARGEST_EXPONENT = math.log(sys.float_info.max)


def _spans(
    num_tokens: int, context_length: int, batch_size: int, max_tokens: int | Literal["all"]
) -> list[tuple[int, int]]:
    """Inputs [start, stop) of each batch: full windows, the shorter last window by itself."""
    num_targets = num_tokens - 1
    if num_targets < context_length:
        raise PreflightError(
            f"the split has {num_tokens} tokens and one window of context_length={context_length} "
            f"needs {context_length + 1}; use more text or a shorter context"
        )
    full = num_targets // context_length * context_length
    if max_tokens == "all":
        end = num_targets
    elif max_tokens >= context_length:
        end = full = min(full, max_tokens // context_length * context_length)
    else:
        raise UsageError(
            f"max_tokens={max_tokens} is less than one window of context_length={context_length}; "
            f"raise it to at least that"
        )
    size = batch_size * context_length
    batches = [(start, min(start + size, full)) for start in range(0, full, size)]
    return [*batches, (full, end)] if full < end else batches


def _score(
    model: nn.Module,
    dataset: Tokens,
    start: int,
    stop: int,
    context_length: int,
    device: torch.device | str,
) -> torch.Tensor:
    """Nats, targets and bytes of the windows whose inputs are [start, stop)."""
    ids = dataset.read(start, stop + 1)
    length = min(context_length, stop - start)
    inputs, targets = (
        torch.from_numpy(part).to(device).view(-1, length)
        for part in (ids[:-1], ids[1:])  # (B, T)
    )
    losses = cross_entropy(model(inputs), targets, reduction="none")
    counts = [stop - start, int(dataset.token_bytes[ids[1:]].sum())]
    nats = losses.sum(dtype=torch.float64).view(1)
    return torch.cat((nats, torch.tensor(counts, dtype=torch.float64, device=device)))
