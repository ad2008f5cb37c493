"""A run's checkpoints: directories that are whole or absent, verified before anything is loaded.

    step-00001000/model.safetensors      the model's state dict
                  optimizer.safetensors  the optimizer's tensors, named for their parameters
                  state.json             position, identity of the run, random generators, checksums

One process writes; any number may read.
"""

import base64
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from lmray.errors import CorruptionError, LmrayError, PreflightError
from lmray.storage import canonical_json, read_json, sha256_file, sync_directory, write_json
from lmray.training.serialization import contiguous_state, load_optimizer_state, optimizer_state

logger = logging.getLogger(__name__)

FORMAT = 1
"""Raised whenever an older reader would misread the files."""

_MODEL, _OPTIMIZER, _STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True)
class Position:
    """How far a run is."""

    step: int
    """Optimizer steps taken."""
    tokens: int
    """Training tokens seen."""
    seconds: float
    """Wall time spent, over all lives of the run."""


START = Position(step=0, tokens=0, seconds=0.0)
"""Where a run without a checkpoint is."""


def write(
    directory: Path,
    *,
    step: int,
    tokens: int,
    seconds: float,
    model: nn.Module,
    optimizer: Optimizer,
    identity: Mapping[str, Any],
) -> Path:
    """Writes directory/step-<step>, whole or not at all, and removes what it makes void.

    `identity` is JSON that another run's would differ in; reading asks for the same. Void are the
    unfinished directories of killed writers, and checkpoints of later steps: the run has passed
    them over as damaged, else it would not be here.

    Raises LmrayError if the disk is full or refuses; the checkpoints before are untouched.
    """
    tensors, rest = optimizer_state(model, optimizer)
    with _whole_directory(directory / f"step-{step:08d}") as aside:
        save_file(contiguous_state(model), aside / _MODEL)
        save_file(tensors, aside / _OPTIMIZER)
        for name in (_MODEL, _OPTIMIZER):
            (aside / name).chmod(0o644)  # safetensors makes files that only their owner reads
            _sync_file(aside / name)
        state = {
            "format": FORMAT,
            "position": asdict(Position(step, tokens, seconds)),
            "identity": dict(identity),
            "optimizer": rest,
            "random": _random_state(),
            "sha256": {name: sha256_file(aside / name) for name in (_MODEL, _OPTIMIZER)},
        }
        write_json(aside / _STATE, {**state, "digest": _digest(state)})
    for path in newest_first(directory):
        if _step(path) > step:
            shutil.rmtree(path)
    return directory / f"step-{step:08d}"


@contextmanager
def _whole_directory(final: Path) -> Iterator[Path]:
    """Yields a hidden directory beside `final` and renames it to `final` after the block."""
    aside = final.with_name(f".{final.name}.tmp-{os.getpid()}")
    replaced = final.with_name(f".{final.name}.replaced-{os.getpid()}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        for leftover in final.parent.glob(".step-*"):
            shutil.rmtree(leftover)
        aside.mkdir()
        yield aside
        sync_directory(aside)
        if final.exists():  # damaged, or the run would have gone on from it
            final.rename(replaced)
        aside.rename(final)
        sync_directory(final.parent)
    except (OSError, SafetensorError) as error:
        raise LmrayError(
            f"cannot write checkpoint {final}: {error}; free some space and run the same command "
            f"again, it goes on from the checkpoint before"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def newest_first(directory: Path) -> list[Path]:
    """The checkpoints beneath `directory`, whole or damaged, the latest step first."""
    found = (path for path in directory.glob("step-*") if path.name[len("step-") :].isdigit())
    return sorted(found, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def prune(directory: Path, keep: int) -> None:
    """Removes all but the `keep` newest checkpoints."""
    for path in newest_first(directory)[keep:]:
        shutil.rmtree(path)


def restore_latest(
    directory: Path, model: nn.Module, optimizer: Optimizer, *, identity: Mapping[str, Any]
) -> Position:
    """Restores the newest whole checkpoint; START, with nothing touched, where there is none.

    Damaged ones are passed over with a warning. Raises PreflightError as `read`.
    """
    for path in newest_first(directory):
        try:
            return read(path, model, optimizer, identity=identity)
        except CorruptionError as error:
            logger.warning("passing over a checkpoint: %s", error)
    return START


def read(
    path: Path, model: nn.Module, optimizer: Optimizer, *, identity: Mapping[str, Any]
) -> Position:
    """Restores model, optimizer and random generators in place from one checkpoint.

    Raises CorruptionError if a file is missing, truncated or altered, and PreflightError if it was
    written under another identity, naming what differs; then nothing has been touched.
    """
    state = _verified_state(path)
    _require_same(path, state["identity"], identity)
    model.load_state_dict(load_file(path / _MODEL))
    load_optimizer_state(model, optimizer, load_file(path / _OPTIMIZER), state["optimizer"])
    _set_random_state(state["random"])
    return Position(**state["position"])


def load_weights(path: Path, model: nn.Module) -> Position:
    """Restores the model alone, for evaluation and generation; errors as `read`, any identity."""
    state = _verified_state(path)
    model.load_state_dict(load_file(path / _MODEL))
    return Position(**state["position"])


def _verified_state(path: Path) -> dict[str, Any]:
    """Reads state.json after checking it and the files it vouches for."""
    try:
        state = read_json(path / _STATE)
        digest = state.pop("digest", "") if isinstance(state, dict) else ""
        if digest != _digest(state):
            raise CorruptionError(f"{path / _STATE} is altered; delete {path}")
        if state["format"] != FORMAT:
            raise PreflightError(
                f"{path} has format {state['format']} and this lmray reads {FORMAT}; "
                f"use the version of lmray that wrote it"
            )
        for name, expected in state["sha256"].items():
            if (found := sha256_file(path / name)) != expected:
                raise CorruptionError(
                    f"{path / name} is truncated or altered (sha256 {found[:12]}, recorded "
                    f"{expected[:12]}); delete {path}"
                )
    except OSError as error:
        raise CorruptionError(f"{path} cannot be read: {error}; delete it") from error
    return state


def _digest(state: Any) -> str:
    return hashlib.sha256(canonical_json(state).encode()).hexdigest()


def _require_same(path: Path, saved: Any, wanted: Mapping[str, Any]) -> None:
    there = dict(_leaves(saved, ""))
    here = dict(_leaves(json.loads(canonical_json(dict(wanted))), ""))
    differing = [
        f"{key} is {there.get(key, 'absent')!r} there and {here.get(key, 'absent')!r} here"
        for key in sorted(there.keys() | here.keys())
        if there.get(key, ...) != here.get(key, ...)
    ]
    if differing:
        raise PreflightError(
            f"{path} belongs to another run: {', '.join(differing)}; "
            f"use that run's config, or another run directory"
        )


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, f"{prefix}.{key}" if prefix else key)


def _random_state() -> dict[str, str]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return {
        name: base64.b64encode(state.numpy().tobytes()).decode() for name, state in states.items()
    }


def _set_random_state(states: Mapping[str, str]) -> None:
    decoded = {
        name: torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
        for name, text in states.items()
    }
    torch.set_rng_state(decoded["cpu"])
    if "cuda" in decoded and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(decoded["cuda"])
