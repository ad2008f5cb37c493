"""Batches on the device they are trained on, and how they get there.

Letters of shapes: B sequences, T positions.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from jaxtyping import Int
from torch import Tensor

from lmray.dataset import BatchSampler, TokenDataset

Batch = tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]
"""Inputs and targets."""

Samplers = Callable[[int], BatchSampler]
"""The sampler of a step; all of them are of one dataset."""

_SHARE_OF_MEMORY = 0.25
"""Free memory of a GPU that tokens may take."""

_PIECE = 1 << 24
"""Tokens copied to the device at once."""


def batches(
    samplers: Samplers, device: torch.device, rank: int, world: int
) -> Callable[[int], Batch]:
    """A function from the step to this rank's part of its batch, on `device`.

    On a GPU the training split lies there if it fits into a quarter of the free memory; else the
    next batch is read while one is computed.
    """
    if device.type == "cpu":
        return lambda step: _apart(_read(samplers, step, rank, world))
    dataset = samplers(0).dataset
    size = len(dataset) * _bytes_per_token(dataset)
    if size <= _SHARE_OF_MEMORY * torch.cuda.mem_get_info(device)[0]:
        return ResidentBatches(samplers, device, rank, world)
    return PrefetchedBatches(samplers, device, rank, world)


def _read(samplers: Samplers, step: int, rank: int, world: int) -> Int[Tensor, "B T+1"]:
    return torch.from_numpy(samplers(step).windows(step, rank, world))


def _apart(windows: Int[Tensor, "B T+1"]) -> Batch:
    return windows[:, :-1], windows[:, 1:]


def _bytes_per_token(dataset: TokenDataset) -> int:
    return 2 if dataset.manifest.dtype == "uint16" else 4


class ResidentBatches:
    """All tokens on the device, two bytes each where they fit; windows are gathered there."""

    def __init__(self, samplers: Samplers, device: torch.device, rank: int, world: int) -> None:
        """Copies the whole split."""
        self._samplers, self._rank, self._world = samplers, rank, world
        dataset = samplers(0).dataset
        # torch has no arithmetic on unsigned integers: their bits, as signed ones.
        signed = torch.int16 if _bytes_per_token(dataset) == 2 else torch.int32
        self._mask = 0xFFFF if signed == torch.int16 else 0xFFFFFFFF
        length = len(dataset)
        self._tokens = torch.empty(length, dtype=signed, device=device)
        for start in range(0, length, _PIECE):
            piece = dataset.read(start, min(start + _PIECE, length))
            self._tokens[start : start + len(piece)] = torch.from_numpy(piece).to(signed)

    def __call__(self, step: int) -> Batch:
        """Gathers one batch; only the windows' positions cross over."""
        sampler = self._samplers(step)
        share = sampler.batch_size // self._world
        starts = sampler.starts(step)[self._rank * share : (self._rank + 1) * share]
        positions = _to(torch.from_numpy(starts), self._tokens.device)
        offsets = torch.arange(sampler.context_length + 1, device=self._tokens.device)
        windows = self._tokens[positions.unsqueeze(1) + offsets].long() & self._mask
        return _apart(windows)


class PrefetchedBatches:
    """Batches read by a thread, one step ahead, into memory that a GPU copies from by itself."""

    def __init__(self, samplers: Samplers, device: torch.device, rank: int, world: int) -> None:
        """Reads nothing yet."""
        self._samplers, self._device = samplers, device
        self._rank, self._world = rank, world
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lmray-batches")
        self._ahead: dict[int, Future[Tensor]] = {}

    def _load(self, step: int) -> Int[Tensor, "B T+1"]:
        # Whole windows, one behind the other: what has gaps is copied by way of other memory, for
        # which the device is waited for.
        windows = _read(self._samplers, step, self._rank, self._world)
        return windows.pin_memory() if self._device.type == "cuda" else windows

    def __call__(self, step: int) -> Batch:
        """Waits for the batch if it is not there yet; errors of the thread are raised here."""
        future = self._ahead.pop(step, None) or self._thread.submit(self._load, step)
        self._ahead = {step + 1: self._thread.submit(self._load, step + 1)}
        return _apart(_to(future.result(), self._device))


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
