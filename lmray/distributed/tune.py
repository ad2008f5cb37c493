"""Ray Tune over the trials of a space: each trial is a run of lmray.experiments, judged by ASHA.

A trial on one device runs the loop inside the Tune function, in an actor that the next trial uses
again; a trial with several workers starts Ray Train from there. The ledger, not Ray Tune, holds the
sweep's state: running a sweep again goes on where its ledger ends.
"""

import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from lmray.config import Run, override
from lmray.dataset import Splits, open_splits
from lmray.distributed.asha import AshaScheduler, Rungs, rebuild
from lmray.distributed.searching import InTurn
from lmray.distributed.train import train_on_workers
from lmray.errors import PreflightError
from lmray.experiments.execute import execute
from lmray.experiments.ledger import CLOSED, Event, Ledger, ignore, standing
from lmray.experiments.run_directory import RunDirectory
from lmray.experiments.space import Space, Trial
from lmray.experiments.sweep_directory import StopFile, additions, begin, is_closed
from lmray.experiments.turns import in_turn

MAX_FAILURES = 1
"""Times a trial whose process or node was lost is started again, from its newest checkpoint."""


def run_sweep(
    space: Space,
    splits: Splits,
    directory: Path,
    runs: Path,
    *,
    observe: Callable[[Event], None] = ignore,
) -> dict[str, str]:
    """Runs the trials of `space` that `directory`'s ledger has not closed; returns how each stands.

    `directory` must have been claimed and a Ray session begun. As many trials run at once as the
    cluster has CPUs, or GPUs where it has some, for their workers. A trial whose last event is
    started or rung was interrupted.

    Raises PreflightError if the cluster has no room for one trial.
    """
    begin(directory)
    ledger = Ledger(directory / "ledger.jsonl", observe)
    events = ledger.events()
    rungs = Rungs(space.asha.rungs(space.base.budget.tokens), space.asha.reduction_factor)
    rebuild(rungs, events)
    stands = standing(events)

    def spec(trial: Trial) -> dict[str, Any]:
        return {
            "id": trial.id,
            "name": trial.name,
            "changes": trial.changes,
            "run": _placed(trial.run, splits).model_dump(),
            "runs": str(runs.resolve()),
            "sweep": directory.name,
            "stop": str(StopFile.of(directory).path.resolve()),
        }

    turns = in_turn(space, splits.digest, directory)
    waiting = (trial for trial in turns if stands.get(trial.id) not in CLOSED)
    if not is_closed(directory, space, splits.digest):
        source = InTurn(waiting, spec)
        _fit(source, AshaScheduler(rungs, ledger), workers=space.base.execution.workers)
    space = replace(space, added=additions(directory))
    stands = standing(ledger.events())
    for trial in space.trials(splits.digest):
        run_directory = RunDirectory(runs / trial.id)
        # Ray ends a stopped trial's workers without giving them time to say so themselves.
        if stands.get(trial.id) == "stopped" and run_directory.status == "running":
            run_directory.finish("stopped", {})
    return {t.id: stands.get(t.id, "waiting") for t in space.trials(splits.digest)}


def _placed(run: Run, splits: Splits) -> Run:
    """The run as a trial's process needs it: an absolute path, and one thread a CPU it is given."""
    changes: dict[str, Any] = {"data.tokens": str(splits.directory.resolve())}
    if run.execution.threads == "auto":
        changes["execution.threads"] = 1
    return override(run, changes)


def _fit(source: InTurn, scheduler: AshaScheduler, *, workers: int) -> None:
    """Lets Ray Tune run the trials; their failures end up in the ledger, not in an exception."""
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    with tempfile.TemporaryDirectory(prefix="lmray-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(_trial, _resources(workers)),
            tune_config=tune.TuneConfig(
                search_alg=source,
                num_samples=-1,
                scheduler=scheduler,
                reuse_actors=workers == 1,
                max_concurrent_trials=_places(workers),
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
        tuner.fit()


def _trial_name(trial: Any) -> str:
    """What the Ray dashboard calls a trial: its values, then its run id."""
    spec = trial.config["trial"]
    return f"{spec['name'].replace(' ', '_')}_{spec['id']}"


def _cluster(kind: str) -> float:
    return ray.cluster_resources().get(kind, 0)


def _places(workers: int) -> int:
    """How many trials the cluster has room for at once.

    Raises PreflightError if not even one fits: Ray would wait for ever.
    """
    kind = "GPU" if _cluster("GPU") else "CPU"
    places = int(_cluster(kind)) // workers
    if places < 1:
        raise PreflightError(
            f"execution.workers={workers}, but the cluster has {_cluster(kind):g} {kind}s; lower "
            f"execution.workers or add nodes"
        )
    return places


def _resources(workers: int) -> dict[str, float]:
    """What Ray sets aside for a trial; one with workers of its own only drives them."""
    if workers > 1:
        # Ray accepts no demand of zero CPUs alone; a byte of memory is always to be had.
        return {"CPU": 0, "memory": 1}
    return {"CPU": 1, "GPU": 1} if _cluster("GPU") else {"CPU": 1}


def _tell(message: dict[str, Any]) -> None:
    # As text: Ray Tune flattens nested results before a scheduler sees them.
    tune.report({"message": json.dumps(message)})


def _trial(config: dict[str, Any]) -> None:
    """A trial's process: replays what an earlier life measured, trains, says how it ended."""
    spec = config["trial"]
    run = Run.model_validate(spec["run"])
    runs = Path(spec["runs"])
    splits = open_splits(run.data.tokens)
    asked_to_stop = StopFile(Path(spec["stop"]))
    if asked_to_stop():
        return
    _tell({"kind": "started", "name": spec["name"], "changes": spec["changes"]})
    directory = RunDirectory(runs / spec["id"])
    for record in directory.records("validation"):
        _tell_rung(record)
    if run.execution.workers > 1:
        callbacks = [TuneReportCallback()]
        directory = train_on_workers(
            run,
            splits,
            runs,
            group=spec["sweep"],
            callbacks=callbacks,
            interrupted=asked_to_stop,
        )
    else:
        directory = execute(
            run,
            splits,
            runs,
            report=_tell_rung,
            group=spec["sweep"],
            interrupted=asked_to_stop,
        )
    facts = directory.facts
    if facts["status"] == "preempted":
        return  # the ledger goes on saying that it runs, so that it is resumed
    keys = ("loss", "bits_per_byte", "perplexity")
    measured = {key: directory.final_validation().get(key) for key in keys}
    where = {"step": facts["step"], "tokens": facts["tokens"], "seconds": facts["seconds"]}
    ended = {**where, **measured}
    _tell({"kind": "ended", "status": facts["status"], "facts": ended})


def _tell_rung(record: dict[str, Any]) -> None:
    if record["kind"] == "validation" and record["scope"] == "prefix":
        _tell(record)
