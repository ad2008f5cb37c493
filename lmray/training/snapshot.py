"""What a checkpoint holds, copied at one instant, so that the run need not wait for the disk."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lmray.training.serialization import optimizer_state


@dataclass(frozen=True)
class Best:
    """The checkpoint of the lowest validation loss."""

    step: int
    """Optimizer steps its weights have seen."""
    loss: float
    """On the fixed prefix, in nats a token."""


@dataclass(frozen=True)
class Position:
    """How far a run is."""

    step: int
    """Optimizer steps taken."""
    tokens: int
    """Training tokens seen."""
    seconds: float
    """Wall time spent, over all lives of the run."""
    best: Best | None = None
    """Up to this step; None where no best checkpoint is kept."""


START = Position(step=0, tokens=0, seconds=0.0)
"""Where a run without a checkpoint is."""


@dataclass(frozen=True)
class Snapshot:
    """A run's whole state, on the host."""

    position: Position
    identity: Mapping[str, Any]
    """JSON that another run's would differ in."""
    model: dict[str, Tensor]
    """The model's state dict."""
    optimizer: dict[str, Tensor]
    """The optimizer's tensors, named for their parameters."""
    rest: dict[str, Any]
    """The optimizer's scalars and the hyperparameters of its groups."""
    random: dict[str, str]
    """States of the random generators, in base64."""


def take(
    position: Position, model: nn.Module, optimizer: Optimizer, identity: Mapping[str, Any]
) -> Snapshot:
    """Copies everything that later steps change; waits for the device once."""
    tensors, rest = optimizer_state(model, optimizer)
    snapshot = Snapshot(
        position, identity, _copies(model.state_dict()), _copies(tensors), rest, random_state()
    )
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return snapshot


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: _begin_copy(tensor) for name, tensor in tensors.items()}


def _begin_copy(tensor: Tensor) -> Tensor:
    # A GPU copies into pinned memory by itself, all tensors one after the other.
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return copy.copy_(tensor, non_blocking=True)


def random_state() -> dict[str, str]:
    """The states of this process's random generators."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return {
        name: base64.b64encode(state.numpy().tobytes()).decode() for name, state in states.items()
    }


def set_random_state(states: Mapping[str, str]) -> None:
    """Puts back what random_state returned."""
    decoded = {
        name: torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
        for name, text in states.items()
    }
    torch.set_rng_state(decoded["cpu"])
    if "cuda" in decoded and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(decoded["cuda"])
