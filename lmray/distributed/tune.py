"""Ray Tune over the trials of a space: each trial is a run of lmray.runs, judged by ASHA.

A trial on one device runs the loop inside the Tune function, in an actor that the next trial uses
again; a trial with several workers starts Ray Train from there. The ledger, not Ray Tune, holds the
sweep's state: running a sweep again goes on where its ledger ends.
"""

import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.trainable.function_trainable import wrap_function

from lmray import remote
from lmray.config import Run, override
from lmray.dataset import Splits, open_splits
from lmray.distributed.asha import AshaScheduler, Broken, Jobs, Judge
from lmray.distributed.gauges import sweep_gauges
from lmray.distributed.notice import Heeding, given, heeded
from lmray.distributed.predecessor import wait_for_predecessor
from lmray.distributed.train import train_on_workers
from lmray.distributed.watching import title, watched
from lmray.errors import LmrayError, PreflightError
from lmray.runs.execute import execute
from lmray.runs.run_directory import FINAL, RunDirectory
from lmray.sweeps.decisions.audit import Auditor
from lmray.sweeps.decisions.referee import Referee, Retry, reopen
from lmray.sweeps.decisions.verdicts import Verdicts
from lmray.sweeps.ledger import CLOSED, Event, Ledger, ignore, standing
from lmray.sweeps.losers import losers, trim
from lmray.sweeps.space import Space, Trial
from lmray.sweeps.sweep_directory import StopFile, begin, fetch
from lmray.sweeps.turns import Turns

_ASKED_TO_STOP = {"kind": "stop"}
"""Told lest Ray Tune print that a job has told nothing."""


def run_sweep(
    space: Space,
    splits: Splits,
    directory: Path,
    runs: Path,
    *,
    retry: Retry = "failed",
    observe: Callable[[Event], None] = ignore,
    named: bool = False,
) -> dict[str, str]:
    """Runs the trials of `space` that `directory`'s ledger has not closed; returns how each stands.

    `directory` must have been claimed and a Ray session begun. As many trials run at once as the
    cluster has CPUs, or GPUs where it has some, for their workers. Trials that an earlier life gave
    up are run again as `retry` says. It ends early, its trials with checkpoints, once the directory
    has a stop file. Losers keep of their checkpoints what `space.losers` says. An actor that is
    `named` runs one job under its trial's name, for the dashboard; others run the next one, too.

    Raises PreflightError if the cluster has no room for one trial, LmrayError if trial after trial
    fails alike.
    """
    begin(directory)
    remote.publish(directory)
    stop = StopFile.of(directory)
    ledger = Ledger(directory / "ledger.jsonl", observe)
    turns = Turns(space, splits.digest, directory, stop)
    budget = space.base.budget.tokens
    reopen(space.asha, budget, ledger, runs, retry)
    stands = standing(ledger.events())
    if any(stands.get(trial.id) not in (*CLOSED, "failed") for trial in turns):
        places = _places(space.base.execution.workers)
        seeds = len(space.seeds)
        referee = Referee(space.asha, budget, ledger, turns, places=places, seeds=seeds, stop=stop)
        asked = _Asked(splits, directory, runs, referee.levels, turns.trials)

        def free() -> None:
            trim(runs, losers(standing(ledger.events()), failed=False), space.losers)

        counted = Turns(space, splits.digest, directory, stop)
        with sweep_gauges(directory, lambda: len(counted.trials())):
            _drive(referee, asked, space=space, stop=stop, named=named, after=free)
    stands = standing(ledger.events())
    fetch(directory, runs)
    for trial in turns.trials():
        _close(RunDirectory(runs / trial.id), stands.get(trial.id, "waiting"))
    trim(runs, losers(stands, failed=retry == "none"), space.losers)
    return {trial.id: stands.get(trial.id, "waiting") for trial in turns.trials()}


def run_audit(
    space: Space,
    splits: Splits,
    directory: Path,
    runs: Path,
    chosen: list[str],
    *,
    observe: Callable[[Event], None] = ignore,
    named: bool = False,
) -> None:
    """Trains stopped trials to their end, as events of the ledger that decide nothing.

    Those that have been audited before are not trained again. Ends early, names its actors and
    raises as `run_sweep` does.
    """
    begin(directory)
    ledger = Ledger(directory / "ledger.jsonl", observe)
    auditor = Auditor(ledger, chosen)
    if auditor.jobs:
        trials = space.trials(splits.digest)
        asked = _Asked(splits, directory, runs, (), lambda: trials)
        _drive(auditor, asked, space=space, stop=StopFile.of(directory), named=named)


def _close(directory: RunDirectory, stands: str) -> None:
    """Gives the run of a trial that left at a rung the status that the sweep gave it."""
    if stands in ("stopped", "diverged") and directory.status not in (*FINAL, "absent", stands):
        directory.finish(stands, {})  # pyrefly: ignore
        remote.publish(directory.path / "run.json")


@dataclass(frozen=True)
class _Asked:
    """What a trial's process is told."""

    splits: Splits
    directory: Path
    runs: Path
    levels: tuple[int, ...]
    trials: Callable[[], list[Trial]]
    """Those that are known when a job is given out."""

    def __call__(self, identifier: str) -> dict[str, Any]:
        trial = next(each for each in self.trials() if each.id == identifier)
        directory = self.directory.resolve()
        return {
            "id": trial.id,
            "name": title(trial),
            "run": _placed(trial.run, self.splits).model_dump(),
            "runs": str(self.runs.resolve()),
            "sweep": directory.name,
            "ledger": str(directory / "ledger.jsonl"),
            "stop": str(StopFile.of(directory).path),
            "levels": list(self.levels),
        }


def _nothing() -> None:
    """What follows the end of a job in an audit."""


def _drive(
    judge: Judge,
    asked: _Asked,
    *,
    space: Space,
    stop: StopFile,
    named: bool,
    after: Callable[[], None] = _nothing,
) -> None:
    """Lets Ray Tune run the judge's jobs; failures of trials end up in the ledger."""
    workers = space.base.execution.workers
    places = _places(workers)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # How many jobs may be on their way to a place; one at a time, the first of them start in turn.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(places)
    with tempfile.TemporaryDirectory(prefix="lmray-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(_Named if named else _trial, _resources(workers)),
            tune_config=tune.TuneConfig(
                search_alg=Jobs(judge, asked, stop, after),
                scheduler=AshaScheduler(judge, asked.runs, timeout_s=space.asha.timeout_s),
                num_samples=-1,
                reuse_actors=workers == 1 and not named,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_job_name,
            ),
            run_config=tune.RunConfig(
                name="sweep", storage_path=scratch, verbose=0, stop=Broken(judge)
            ),
        )
        tuner.fit()
    if judge.broken:
        raise LmrayError(judge.broken)


def _placed(run: Run, splits: Splits) -> Run:
    """The run as a trial's process needs it: an absolute path, and one thread a CPU it is given."""
    changes: dict[str, Any] = {"data.tokens": str(splits.directory.resolve())}
    if run.execution.threads == "auto":
        changes["execution.threads"] = 1
    return override(run, changes)


def _trial_name(trial: Any) -> str:
    return trial.config["trial"]["name"]


def _job_name(trial: Any) -> str:
    """A directory of its own for each job of a trial."""
    return f"{trial.config['trial']['id']}_{trial.trial_id}"


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
    """A job's process: trains until the trial has to leave or is at its end, says how it stands.

    If the sweep was asked to stop it says only that: the ledger goes on saying that the trial runs.
    Rungs that the run has passed without the sweep's knowledge, in another sweep, say, are judged
    by what it wrote down there.
    """
    spec = config["trial"]
    run = Run.model_validate(spec["run"])
    runs = remote.cached(spec["runs"])
    directory = RunDirectory(runs / spec["id"])
    stop = StopFile(remote.cached(spec["stop"]))
    if stop():
        _tell(_ASKED_TO_STOP)
        return
    wait_for_predecessor(directory)
    remote.refresh(directory.path)
    verdicts = Verdicts(remote.cached(spec["ledger"]), spec["id"], spec["levels"], _tell)
    for record in directory.records("validation"):
        verdicts(record)
    if not verdicts.interrupted():
        splits = open_splits(run.data.tokens)
        if run.execution.workers > 1:
            train_on_workers(
                run,
                splits,
                runs,
                group=spec["sweep"],
                callbacks=[TuneReportCallback()],
                asks=spec,
                # One that has not looked: another node's clock is not this one's.
                interrupted=StopFile(stop.path),
            )
        else:
            shown = watched(run, verdicts, sweep=spec["sweep"], trial=spec["name"])
            with heeded(), shown as report:
                execute(
                    run,
                    splits,
                    runs,
                    report=report,
                    interrupted=lambda: verdicts.interrupted() or stop() or given(),
                    group=spec["sweep"],
                )
    facts = directory.facts
    if facts["status"] == "preempted" and stop():
        _tell(_ASKED_TO_STOP)
        return
    keys = ("loss", "bits_per_byte", "perplexity")
    measured = {key: directory.final_validation().get(key) for key in keys}
    where = {key: facts.get(key, 0) for key in ("step", "tokens", "seconds")}
    _tell({"kind": "ended", "status": facts["status"], "facts": {**where, **measured}})


# Ray Tune mixes these into the class that it makes of the function.
_trial.__mixins__ = (Heeding,)  # pyrefly: ignore[missing-attribute]


class _Named(wrap_function(_trial)):  # pyrefly: ignore
    """A job in an actor that the Ray dashboard calls by its trial's name."""

    def __repr__(self) -> str:
        return self.trial_name
