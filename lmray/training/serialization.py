"""An optimizer's state under its parameters' names, and the coursework's checkpoint in one file.

Tensors go into safetensors, everything else into JSON; nothing is pickled, so that a stranger's
file can be read without executing it.
"""

import json
import os
from pathlib import Path
from typing import IO, Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import Optimizer

from lmray.errors import CorruptionError
from lmray.storage import canonical_json, write_bytes

_MODEL, _OPTIMIZER = "model.", "optimizer."
_HEADER_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its JSON header, little-endian."""


def contiguous_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's state dict as safetensors takes it."""
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def optimizer_state(
    model: nn.Module, optimizer: Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Splits the state into tensors, as "lm_head.weight.exp_avg", and JSON values for the rest.

    The rest are the scalars under such names and the hyperparameters of each group.
    """
    tensors, scalars = {}, {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            part = tensors if isinstance(value, Tensor) else scalars
            part[f"{name}.{key}"] = value.contiguous() if isinstance(value, Tensor) else value
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    return tensors, {"scalars": scalars, "groups": groups}


def load_optimizer_state(
    model: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor], rest: dict[str, Any]
) -> None:
    """Puts back what optimizer_state returned, tensors on their parameter's device."""
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for qualified, value in [*tensors.items(), *rest["scalars"].items()]:
        name, _, key = qualified.rpartition(".")
        # A 0-dimensional tensor is a counter, which torch's optimizers keep on the CPU.
        if isinstance(value, Tensor) and value.ndim:
            value = value.to(parameters[name].device)
        optimizer.state[parameters[name]][key] = value
    for group, saved in zip(optimizer.param_groups, rest["groups"], strict=True):
        for key, value in saved.items():
            group[key] = tuple(value) if isinstance(value, list) else value  # JSON has no tuples


def save_checkpoint(
    model: nn.Module,
    optimizer: Optimizer,
    iteration: int,
    out: str | os.PathLike[str] | IO[bytes],
) -> None:
    """Writes what load_checkpoint needs in one piece; to a path whole or not at all."""
    state, rest = optimizer_state(model, optimizer)
    tensors = {_MODEL + name: tensor for name, tensor in contiguous_state(model).items()}
    tensors |= {_OPTIMIZER + name: tensor for name, tensor in state.items()}
    metadata = {"iteration": str(iteration), "optimizer": canonical_json(rest)}
    data = safetensors.torch.save(tensors, metadata=metadata)
    if isinstance(out, str | os.PathLike):
        write_bytes(Path(out), data)
    else:
        out.write(data)


def load_checkpoint(
    src: str | os.PathLike[str] | IO[bytes], model: nn.Module, optimizer: Optimizer
) -> int:
    """Restores the model and the optimizer in place and returns the iteration.

    Raises CorruptionError for what save_checkpoint did not write, or not to its end.
    """
    data = Path(src).read_bytes() if isinstance(src, str | os.PathLike) else src.read()
    try:
        tensors = safetensors.torch.load(data)
        end = _HEADER_LENGTH_BYTES + int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
        metadata = json.loads(data[_HEADER_LENGTH_BYTES:end])["__metadata__"]
        iteration, rest = int(metadata["iteration"]), json.loads(metadata["optimizer"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise CorruptionError(
            f"{src} is truncated or no checkpoint of save_checkpoint ({error}); use another"
        ) from error
    model.load_state_dict(_beneath(_MODEL, tensors))
    load_optimizer_state(model, optimizer, _beneath(_OPTIMIZER, tensors), rest)
    return iteration


def _beneath(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
