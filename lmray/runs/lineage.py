"""Runs that begin from the end of another: what they take over of it, and from which they may.

A child goes on with its parent's weights, optimizer state, random generators and count of steps, on
the batches that follow, under settings of its own. Its run id contains its parent's.
"""

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lmray import remote
from lmray.config import Run, identity
from lmray.errors import PreflightError
from lmray.runs.run_directory import RunDirectory
from lmray.training import checkpoint
from lmray.training.budget import Meter
from lmray.training.identity import differences
from lmray.training.loop import Begin, anew
from lmray.training.snapshot import Position


def beginning(run: Run, data_digest: str, directory: RunDirectory) -> Begin:
    """What `run` begins with in its directory: its parent's end, or nothing where it has none.

    A run that has a checkpoint of its own needs its parent no more, unless that is damaged.

    Raises PreflightError if the parent is not there, not done or without its last checkpoint, has
    another model, data, seed or kind of optimizer, or has trained as far as this run is to.
    """
    if run.begins_from == "none":
        return anew
    find = partial(_parents_end, run, data_digest, directory.path.parent)
    if not checkpoint.newest_first(directory.checkpoints):
        find()
    return lambda model, optimizer: _restore(*find(), model, optimizer)


def _parents_end(run: Run, data_digest: str, runs: Path) -> tuple[Path, dict[str, Any]]:
    """The parent's last checkpoint and whose it is; raises as `beginning`."""
    parent = RunDirectory(runs / run.begins_from)
    remote.refresh(parent.path)
    if parent.status != "done":
        there = "no such run" if parent.status == "absent" else f"its status is {parent.status}"
        raise PreflightError(
            f"begins_from={run.begins_from}: {there} in {runs}; name a run there that is done, as "
            f"`lmray board` lists them"
        )
    digest = parent.facts["data"]["digest"]
    if other := differences(_inherited(parent.config, digest), _inherited(run, data_digest)):
        raise PreflightError(
            f"begins_from={run.begins_from} cannot be gone on from: {', '.join(other)}; give this "
            f"run its parent's, or let it begin anew"
        )
    ended = parent.facts["step"]
    if Meter(run).steps <= ended:
        raise PreflightError(
            f"begins_from={run.begins_from} has taken {ended} steps ({parent.facts['tokens']:,} "
            f"tokens) and this budget ends after {Meter(run).steps}; it counts from the parent's "
            f"own beginning, so raise budget.tokens (or budget.steps, budget.flops) beyond"
        )
    found = [
        p for p in checkpoint.newest_first(parent.checkpoints) if checkpoint.step_of(p) == ended
    ]
    if not found or not checkpoint.goes_on(found[0]):
        raise PreflightError(
            f"begins_from={run.begins_from} has not kept the checkpoint of its last step {ended} "
            f"with the optimizer's state; train it again (`lmray train --again`)"
        )
    return found[0], identity(parent.config, digest)


def _inherited(run: Run, data_digest: str) -> dict[str, Any]:
    """What a child has in common with its parent; the optimizer's state is laid out by the last."""
    experiment = run.experiment()
    optim = {key: getattr(run.optim, key) for key in ("name", "precision", "no_decay")}
    data = {**experiment["data"], "digest": data_digest}
    return {"model": experiment["model"], "data": data, "seed": run.seed, "optim": optim}


def _restore(path: Path, saved: dict[str, Any], model: nn.Module, optimizer: Optimizer) -> Position:
    """Restores a parent's last checkpoint but for the hyperparameters, which stay the child's."""
    own = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    end = checkpoint.read(path, model, optimizer, identity=saved)
    for group, values in zip(optimizer.param_groups, own, strict=True):
        group.update(values)
    return Position(end.step, end.tokens, seconds=0.0)
