"""The runs of a sweep's losers: how they stand, and what is left of their checkpoints."""

import math
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from lmray import remote
from lmray.accounting import num_parameters
from lmray.config import Run
from lmray.errors import CorruptionError, PreflightError
from lmray.runs.run_directory import FINAL, RunDirectory
from lmray.sweeps.ledger import Event, standing, statuses
from lmray.training import checkpoint

Keep = Literal["all", "best", "nothing"]
"""What a loser keeps of its checkpoints: all; the weights of the one of lowest validation loss, for
readers, so that an audit of it begins anew; or nothing. Its record and its samples stay."""

_WEIGHT_BYTES = 4
_STATE_BYTES = 12
"""Bytes a parameter: the weight and AdamW's two moments."""


def losers(runs: Path, events: Sequence[Event], *, failed: bool) -> list[str]:
    """The trials that were stopped or diverged; with `failed` also those that failed too often.

    Not those whose runs have begun again since, in an audit that is not over or another sweep.
    """
    kinds = ("stopped", "diverged", "failed") if failed else ("stopped", "diverged")
    last = {event.trial: event.facts["time"] for event in events}
    lost = [trial for trial, kind in standing(events).items() if kind in kinds]
    return [each for each in lost if not RunDirectory(runs / each).begun_since(last[each])]


def close(runs: Path, events: Sequence[Event]) -> None:
    """Gives the run of a trial that left at a rung the status that the sweep gave it."""
    stands = statuses(events)
    for trial in losers(runs, events, failed=False):
        run = RunDirectory(runs / trial)
        if run.status not in (*FINAL, "absent", stands[trial]):
            run.finish(stands[trial], {})  # pyrefly: ignore
            remote.publish(run.path / "run.json")


def trim(runs: Path, trials: Iterable[str], keep: Keep) -> None:
    """Frees the disk of runs of losers, once their processes have let go of them.

    A run that is done, by an audit or another sweep, keeps all, and so does every run at a URL.
    Whenever it is cut off, what was to be kept is there, and the same call goes on.
    """
    if keep == "all" or remote.url(runs):
        return
    for trial in trials:
        run = RunDirectory(runs / trial)
        files = list(run.checkpoints.rglob("*.safetensors"))
        if len(files) <= (keep == "best") or run.status in ("absent", "done"):
            continue
        with suppress(PreflightError), run.locked():  # refused while its process still has it
            _trim(run, keep)


def _trim(run: RunDirectory, keep: Keep) -> None:
    for leftover in run.checkpoints.glob(".step-*"):
        shutil.rmtree(leftover)
    kept = _reduced(run) if keep == "best" else None
    for path in checkpoint.newest_first(run.checkpoints):
        if path != kept:
            # Out of the readers' sight first: half of a checkpoint would be a damaged one.
            path.rename(hidden := path.with_name(f".{path.name}.removed"))
            shutil.rmtree(hidden)


def _reduced(run: RunDirectory) -> Path | None:
    """The best checkpoint that is whole, reduced to its weights; None where there is none."""
    measured = {
        record["step"]: record["loss"]
        for record in run.records("validation")
        if record["scope"] == "prefix" and record["loss"] is not None
    }
    found = checkpoint.newest_first(run.checkpoints)
    for path in sorted(found, key=lambda p: measured.get(checkpoint.step_of(p), math.inf)):
        try:
            checkpoint.keep_weights(path)
        except CorruptionError:
            continue
        return path
    return None


def begins_anew(run: RunDirectory) -> bool:
    """Whether a run has no checkpoint to go on from."""
    return not any(map(checkpoint.goes_on, checkpoint.newest_first(run.checkpoints)))


def kept_bytes(run: Run) -> int:
    """Bytes of the checkpoints that a run keeps in the end."""
    return _STATE_BYTES * num_parameters(run.model) * run.execution.keep_checkpoints


def loser_bytes(run: Run, keep: Keep) -> int:
    """Bytes of the checkpoints that are left of a run that lost."""
    if keep == "all":
        return kept_bytes(run)
    return _WEIGHT_BYTES * num_parameters(run.model) if keep == "best" else 0
