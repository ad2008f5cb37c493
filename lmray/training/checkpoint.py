"""A run's checkpoints: directories that are whole or absent, verified before anything is loaded.

    step-00001000/model.safetensors      the model's state dict
                  optimizer.safetensors  the optimizer's tensors, named for their parameters
                  state.json             position, identity of the run, random generators, checksums

One process writes; any number may read.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from lmray.errors import CorruptionError, LmrayError, PreflightError, UsageError
from lmray.storage import canonical_json, read_json, sha256_file, sync_directory, write_json
from lmray.training.serialization import load_optimizer_state
from lmray.training.snapshot import START, Best, Position, Snapshot, set_random_state

logger = logging.getLogger(__name__)

FORMAT = 3
"""Raised whenever an older reader would misread the files; format 1 knew no best checkpoint, 2 none
of weights alone."""

_MODEL, _OPTIMIZER, _STATE = "model.safetensors", "optimizer.safetensors", "state.json"


def write(directory: Path, snapshot: Snapshot) -> Path:
    """Writes directory/step-<step>, whole or not at all, and removes what it makes void.

    Void are the unfinished directories of killed writers, and checkpoints of later steps: the run
    has passed them over as damaged, else it would not be here.

    Raises LmrayError if the disk is full or refuses; the checkpoints before are untouched.
    """
    step = snapshot.position.step
    with _whole_directory(_place(directory, step)) as aside:
        save_file(snapshot.model, aside / _MODEL)
        save_file(snapshot.optimizer, aside / _OPTIMIZER)
        for name in (_MODEL, _OPTIMIZER):
            (aside / name).chmod(0o644)  # safetensors makes files that only their owner reads
            _sync_file(aside / name)
        state = {
            "format": FORMAT,
            "position": asdict(snapshot.position),
            "identity": dict(snapshot.identity),
            "optimizer": snapshot.rest,
            "random": snapshot.random,
            "sha256": {name: sha256_file(aside / name) for name in (_MODEL, _OPTIMIZER)},
        }
        write_json(aside / _STATE, {**state, "digest": _digest(state)})
    for path in newest_first(directory):
        if step_of(path) > step:
            shutil.rmtree(path)
    return _place(directory, step)


def _place(directory: Path, step: int) -> Path:
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
    return sorted(found, key=step_of, reverse=True)


def newest_step(directory: Path) -> int:
    """The step of the newest checkpoint, whole or damaged; 0 without any."""
    return max(map(step_of, newest_first(directory)), default=0)


def step_of(path: Path) -> int:
    """The optimizer steps that a checkpoint's weights have seen, by its name."""
    return int(path.name.removeprefix("step-"))


def prune(directory: Path, keep: int, spare: Collection[int] = ()) -> None:
    """Removes all but the `keep` newest checkpoints and those of the steps in `spare`."""
    for path in newest_first(directory)[keep:]:
        if step_of(path) not in spare:
            shutil.rmtree(path)


def keep_weights(path: Path) -> None:
    """Reduces a checkpoint to its weights, which serve readers; no run goes on from them.

    Whenever it is cut off, the checkpoint is what it was or is reduced; the same call goes on.

    Raises CorruptionError if the weights are damaged; then nothing has been touched.
    """
    state = _state(path)
    weights = {_MODEL: state["sha256"][_MODEL]}
    _verify(path, weights)
    alone = {**state, "format": FORMAT, "optimizer": None, "sha256": weights}
    if alone != state:
        write_json(path / _STATE, {**alone, "digest": _digest(alone)})
    (path / _OPTIMIZER).unlink(missing_ok=True)


def goes_on(path: Path) -> bool:
    """Whether a run can go on from a checkpoint, if that is whole."""
    try:
        return _state(path)["optimizer"] is not None
    except CorruptionError:
        return False


def select(directory: Path, which: str) -> list[Path]:
    """The checkpoints that `which` stands for: a step, best, or latest, which is all of them.

    Of the latest, the newest first, a reader takes the first that is whole.

    Raises PreflightError if there is none, and UsageError if `which` is no such word.
    """
    found = newest_first(directory)
    if not found:
        raise PreflightError(
            f"{directory.parent} has no checkpoint yet; let it train to its first one"
        )
    if which == "latest":
        return found
    there = ", ".join(str(step_of(path)) for path in found)
    if which == "best":
        best = _best(found)
        if best is None:
            raise PreflightError(
                f"{directory.parent} has no best checkpoint; execution.keep_best=true keeps one "
                f"from its next evaluation on; use latest or one of the steps {there}"
            )
        which = str(best.step)
    if not which.isdecimal():
        raise UsageError(f"checkpoint {which!r} is neither best nor latest nor one of {there}")
    path = _place(directory, int(which))
    if path not in found:
        raise PreflightError(
            f"{directory.parent} has no checkpoint of step {which}; there are {there}"
        )
    return [path]


def _best(found: list[Path]) -> Best | None:
    """What the newest checkpoint whose state is whole knows as the best."""
    for path in found:
        try:
            return _position(_state(path)).best
        except CorruptionError as error:
            logger.warning("passing over a checkpoint: %s", error)
    return None


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

    Raises CorruptionError if a file is missing, truncated or altered, or there are weights alone,
    and PreflightError if it was written under another identity, naming what differs; then nothing
    has been touched.
    """
    state = _verified_state(path)
    _require_same(path, state["identity"], identity)
    if state["optimizer"] is None:
        raise CorruptionError(f"{path} keeps weights alone, so that no run can go on from it")
    model.load_state_dict(load_file(path / _MODEL))
    load_optimizer_state(model, optimizer, load_file(path / _OPTIMIZER), state["optimizer"])
    set_random_state(state["random"])
    return _position(state)


def load_weights(path: Path, model: nn.Module) -> Position:
    """Restores the model alone, for evaluation and generation; errors as `read`, any identity."""
    state = _verified_state(path)
    model.load_state_dict(load_file(path / _MODEL))
    return _position(state)


def optimizer_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `optimizer_state` returned when a checkpoint was written; errors as `load_weights`."""
    state = _verified_state(path)
    return load_file(path / _OPTIMIZER), state["optimizer"]


def _position(state: Mapping[str, Any]) -> Position:
    values = dict(state["position"])
    best = values.pop("best", None)
    return Position(**values, best=Best(**best) if best else None)


def _state(path: Path) -> dict[str, Any]:
    """Reads state.json and checks it against its own digest."""
    try:
        state = read_json(path / _STATE)
    except OSError as error:
        raise CorruptionError(f"{path} cannot be read: {error}; delete it") from error
    digest = state.pop("digest", "") if isinstance(state, dict) else ""
    if digest != _digest(state):
        raise CorruptionError(f"{path / _STATE} is altered; delete {path}")
    if not 1 <= state["format"] <= FORMAT:
        raise PreflightError(
            f"{path} has format {state['format']} and this lmray reads up to {FORMAT}; "
            f"use the version of lmray that wrote it"
        )
    return state


def _verified_state(path: Path) -> dict[str, Any]:
    """The state, once the files it vouches for are found to be whole."""
    state = _state(path)
    _verify(path, state["sha256"])
    return state


def _verify(path: Path, digests: Mapping[str, str]) -> None:
    for name, expected in digests.items():
        try:
            found = sha256_file(path / name)
        except OSError as error:
            raise CorruptionError(f"{path} cannot be read: {error}; delete it") from error
        if found != expected:
            raise CorruptionError(
                f"{path / name} is truncated or altered (sha256 {found[:12]}, recorded "
                f"{expected[:12]}); delete {path}"
            )


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
