"""Validation: the loss on fixed windows of a split, the same windows at every call.

Letters of shapes: B windows, T positions, D documents.
"""

import math
import sys
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import nn

from lmray.progress import Progress, silent
from lmray.training.accumulation import Room, parts
from lmray.training.bootstrap import ratio_intervals
from lmray.training.chunked_loss import token_losses
from lmray.training.measured import finite
from lmray.training.windows import Windows, plan


class Tokens(Protocol):
    """What evaluation reads; lmray.dataset.TokenDataset is one."""

    token_bytes: Int[np.ndarray, " V"]
    """UTF-8 bytes that each token id spells."""

    @property
    def document_ends(self) -> Int[np.ndarray, " D"]:
        """Positions after each document's last token, ascending."""

    def __len__(self) -> int:
        """Tokens of the split."""

    def read(self, start: int, stop: int) -> Int[np.ndarray, " N"]:
        """Token ids at positions [start, stop)."""


@dataclass(frozen=True, eq=False)
class Validation:
    """How well a model predicts a text. A model with NaN among its outputs has NaN in all means."""

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
    stride: int
    """Tokens from one window to the next; less than the context length where they overlap."""
    loss_by_position: Float[np.ndarray, " T"]
    """Mean nats of the targets that were predicted from 1, 2 ... context_length tokens."""
    tokens_by_position: Int[np.ndarray, " T"]
    """How many targets that were."""
    by_document: Float[np.ndarray, "3 D"]
    """Nats, targets and bytes of each document with a target."""


def evaluate(
    model: nn.Module,
    dataset: Tokens,
    *,
    context_length: int,
    batch_size: int,
    max_tokens: int | Literal["all"],
    device: torch.device | str,
    room: Room,
    stride: int | Literal["disjoint"] = "disjoint",
    progress: Progress = silent,
) -> Validation:
    """Scores the windows [i T, i T + T) of `dataset`, each target being the token after its input.

    "all" scores every token but the first exactly once, in a shorter last window where need be; a
    number scores the first floor(max_tokens / T) full windows, as many as there are. With a
    `stride` windows overlap, see `plan`. Sums are in fp64. Where there is no `room` for a batch of
    windows it is computed in parts. Under torch.distributed every rank calls this, takes each
    world-size-th batch and returns the same numbers; `model` is then the bare module, since ranks
    may differ by one forward pass.

    Raises UsageError and PreflightError as `plan`.
    """
    batches = plan(
        len(dataset),
        context_length=context_length,
        stride=context_length if stride == "disjoint" else stride,
        batch_size=batch_size,
        max_tokens=max_tokens,
    )
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    sums = _Sums(dataset, context_length, device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for windows in batches[rank::world]:
                sums.add(model, windows, room)
                progress("evaluate", windows.stop - 1, batches[-1].stop - 1, "tokens")
    finally:
        model.train(was_training)
    if world > 1:
        dist.all_reduce(sums.all)
    nats, by_position, by_document = sums.fetched()
    tokens_by_position = np.zeros(context_length, dtype=np.int64)
    for windows in batches:
        tokens_by_position[windows.skipped : windows.length] += windows.count
    tokens, text_bytes = (int(total) for total in by_document[1:].sum(1))
    loss = nats / tokens
    return Validation(
        loss=loss,
        perplexity=perplexity(loss),
        bits_per_byte=nats / math.log(2) / text_bytes,
        tokens=tokens,
        bytes=text_bytes,
        context_length=context_length,
        stride=batches[0].stride,
        loss_by_position=by_position / tokens_by_position,
        tokens_by_position=tokens_by_position,
        by_document=by_document[:, by_document[1] > 0],
    )


def intervals(validation: Validation) -> dict[str, float | None]:
    """95 % bootstrap intervals of loss and bits_per_byte, as records have them; None is unknown.

    Over other documents of the same kind, for this model: what another seed would have trained is
    not in them. Nothing is known from fewer than two documents.
    """
    nats, tokens, text_bytes = validation.by_document
    loss, bits = ratio_intervals(nats, tokens, text_bytes * math.log(2))
    return {
        "documents": len(nats),
        "loss_low": finite(loss.low),
        "loss_high": finite(loss.high),
        "bits_per_byte_low": finite(bits.low),
        "bits_per_byte_high": finite(bits.high),
    }


_LARGEST_EXPONENT = math.log(sys.float_info.max)


def perplexity(loss: float) -> float:
    """exp(loss), or the largest float where that overflows."""
    return sys.float_info.max if loss > _LARGEST_EXPONENT else math.exp(loss)


class _Sums:
    """What is added up over windows, in fp64 on the device, so that nothing waits for it."""

    def __init__(self, dataset: Tokens, context_length: int, device: torch.device | str) -> None:
        self._dataset = dataset
        self._device = device
        # What follows the last end belongs to the last document, as does all where there is none.
        self._borders = dataset.document_ends[:-1].astype(np.int64)
        documents = len(self._borders) + 1
        sizes = [1, context_length, 3 * documents]
        self.all = torch.zeros(sum(sizes), dtype=torch.float64, device=device)
        """One tensor for all of them, as ranks exchange it."""
        self._nats, self._by_position, by_document = self.all.split(sizes)
        # nats, targets and bytes; the latter are exact in fp64 up to 2^53
        self._by_document = by_document.view(3, documents)

    def add(self, model: nn.Module, windows: Windows, room: Room) -> None:
        """Scores windows and adds what they yield."""
        ids = self._dataset.read(windows.start, windows.stop)
        inputs, targets = (
            torch.from_numpy(part).to(self._device).unfold(0, windows.length, windows.stride)
            for part in (ids[:-1], ids[1:])  # (B, T)
        )

        def losses_of(micro_batch: int) -> Float[torch.Tensor, "B T"]:
            each = [
                token_losses(model(inputs[rows]), targets[rows])
                for rows in parts(windows.count, micro_batch)
            ]
            return torch.cat(each)

        losses = room.fitting(losses_of, windows.count)[:, windows.skipped :]
        self._nats += losses.sum(dtype=torch.float64)
        self._by_position[windows.skipped : windows.length] += losses.sum(0, dtype=torch.float64)
        scored = ids[windows.first_target - windows.start :]
        positions = np.arange(windows.first_target, windows.stop)
        documents = np.searchsorted(self._borders, positions, side="right")
        index, text_bytes = (
            torch.from_numpy(each).to(self._device)
            for each in (documents, self._dataset.token_bytes[scored].astype(np.float64))
        )
        nats = losses.flatten().double()
        facts = (nats, torch.ones_like(nats), text_bytes)
        for total, values in zip(self._by_document, facts, strict=True):
            total.index_add_(0, index, values)

    def fetched(self) -> tuple[float, Float[np.ndarray, " T"], Float[np.ndarray, "3 D"]]:
        """Nats, nats by position, and nats, targets and bytes by document; waits for the device."""
        by_position, by_document = self._by_position.cpu(), self._by_document.cpu()
        return self._nats.item(), by_position.numpy(), by_document.numpy()
