"""Ray Tune over the trials of a space: each trial is a run of lmray.runs, judged by ASHA.

What runs in a trial's process is in trial.py. The ledger, not Ray Tune, holds the sweep's state:
running a sweep again goes on where its ledger ends.
"""

import logging
import os
import signal
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from lmray import remote
from lmray.config import Run, override
from lmray.dataset import Splits
from lmray.distributed.asha import AshaScheduler, Broken, Jobs, Judge
from lmray.distributed.cluster import grows, nodes
from lmray.distributed.gauges import sweep_gauges
from lmray.distributed.notice import kept, on_notice
from lmray.distributed.trial import NamedJob, job
from lmray.distributed.watching import title
from lmray.errors import LmrayError
from lmray.sweeps.decisions.audit import Auditor
from lmray.sweeps.decisions.referee import Referee, Retry, given_up, reopen
from lmray.sweeps.ledger import CLOSED, Event, Ledger, ignore, standing
from lmray.sweeps.losers import close, losers, trim
from lmray.sweeps.places import Demand, at_once, demand_at_once
from lmray.sweeps.space import Space, Trial
from lmray.sweeps.sweep_directory import StopFile, begin, fetch
from lmray.sweeps.turns import Turns
from lmray.threads import repeating
from lmray.training.loop import never

_logger = logging.getLogger(__name__)

_WATCH_S = 5.0
"""Seconds between looks at the limit while no trial asks for a place."""


def run_sweep(
    space: Space,
    splits: Splits,
    directory: Path,
    runs: Path,
    *,
    retry: Retry = "failed",
    observe: Callable[[Event], None] = ignore,
    limit: Callable[[], bool] = never,
    named: bool = False,
    stated: int = 0,
) -> dict[str, str]:
    """Runs the trials of `space` that `directory`'s ledger has not closed; returns how each stands.

    `directory` must have been claimed and a Ray session begun. As many trials run at once as the
    scarcest of CPUs, GPUs and memory has room for, or as `stated` (sweeps/places.py). Trials that
    an earlier life gave up are run again as `retry` says. It ends early, its trials with
    checkpoints, once the directory has a stop file, which SIGTERM and Ctrl-C ask for as well, or
    `limit()` is true, asked for whenever a place is free and every few seconds. Losers keep of
    their checkpoints what `space.losers` says. An actor that is `named` runs one job under its
    trial's name, for the dashboard; others run the next one, too.

    Raises PreflightError if there will never be room for the trials, LmrayError if trial after
    trial fails alike.
    """
    begin(directory)
    remote.publish(directory)
    asked_to = StopFile.of(directory)

    def stop() -> bool:
        if not asked_to() and limit():
            asked_to.ask()
        return asked_to()

    def watch() -> None:
        stop()

    ledger = Ledger(directory / "ledger.jsonl", observe)
    turns = Turns(space, splits.digest, directory, stop)
    budget = space.base.budget.tokens
    reopen(space.asha, budget, ledger, runs, retry)
    stands, lost = standing(ledger.events()), given_up(space.asha, budget, ledger.events())
    if any(stands.get(trial.id) not in CLOSED and trial.id not in lost for trial in turns):
        places = _places(space, stated)
        seeds = len(space.seeds)
        referee = Referee(space.asha, budget, ledger, turns, places=places, seeds=seeds, stop=stop)
        asked = _Asked(splits, directory, runs, referee.levels, turns.trials)

        def free() -> None:
            trim(runs, losers(runs, ledger.events(), failed=False), space.losers)

        counted = Turns(space, splits.digest, directory, stop)
        shown = sweep_gauges(directory, lambda: len(counted.trials()))
        with shown, repeating(watch, every_s=_WATCH_S), _told(asked_to):
            _drive(referee, asked, space=space, places=places, stop=stop, named=named, after=free)
    stands = standing(ledger.events())
    fetch(directory, runs)
    close(runs, ledger.events())
    trim(runs, losers(runs, ledger.events(), failed=retry == "none"), space.losers)
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
    stated: int = 0,
) -> None:
    """Trains stopped trials to their end, as events of the ledger that decide nothing.

    Those that have been audited before are not trained again. Ends early, names its actors, has
    places and raises as `run_sweep` does.
    """
    begin(directory)
    ledger = Ledger(directory / "ledger.jsonl", observe)
    auditor = Auditor(ledger, chosen)
    if auditor.jobs:
        places = _places(space, stated)
        trials = space.trials(splits.digest)
        asked = _Asked(splits, directory, runs, (), lambda: trials)
        asked_to = StopFile.of(directory)
        with _told(asked_to):
            _drive(auditor, asked, space=space, places=places, stop=asked_to, named=named)


def _places(space: Space, stated: int) -> int:
    execution, memory = space.base.execution, space.process_memory()
    return at_once(execution, nodes(), memory=memory, stated=stated, grows=grows)


def _told(asked_to: StopFile) -> AbstractContextManager[None]:
    """Has SIGTERM and Ctrl-C ask the trials for checkpoints, and the next one end all at once."""

    def ask() -> None:
        asked_to.ask()
        _logger.warning("asked to stop: the trials write checkpoints; once more ends at once")

    return on_notice(ask, signal.SIGTERM, signal.SIGINT)


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
    places: int,
    stop: Callable[[], bool],
    named: bool,
    after: Callable[[], None] = _nothing,
) -> None:
    """Lets Ray Tune run the judge's jobs; failures of trials end up in the ledger."""
    execution = space.base.execution
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Tune's answer to Ctrl-C ends the trials without checkpoints, and would stay after its end.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # How many jobs may be on their way to a place; one at a time, the first of them start in turn.
    # That they wait is what makes a cluster grow.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(places)
    scheduler = AshaScheduler(judge, asked.directory, asked.runs, timeout_s=space.asha.timeout_s)
    with tempfile.TemporaryDirectory(prefix="lmray-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(NamedJob if named else job, _resources(space, places)),
            tune_config=tune.TuneConfig(
                search_alg=Jobs(judge, asked, stop, after, scheduler.look),
                scheduler=scheduler,
                num_samples=-1,
                reuse_actors=execution.workers == 1 and not named,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_job_name,
            ),
            run_config=tune.RunConfig(
                name="sweep", storage_path=scratch, verbose=0, stop=Broken(judge)
            ),
        )
        with kept(signal.SIGUSR1):  # the other signal that Tune takes, and cannot be told not to
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


def _resources(space: Space, places: int) -> Demand:
    """What Ray sets aside for a trial; one with workers of its own only drives them."""
    execution, memory = space.base.execution, space.process_memory()
    if execution.workers > 1:
        # Ray accepts no demand of zero CPUs alone; a byte of memory is always to be had.
        return {"CPU": 0, "memory": 1}
    return demand_at_once(execution, nodes(), memory, processes=places)
