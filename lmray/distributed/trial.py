"""A job of a sweep in its process: a stretch of a trial, from its checkpoint to where it leaves.

A trial on one device runs the loop inside the Tune function, in an actor that the next trial uses
again; a trial with several workers starts Ray Train from there.
"""

import json
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.trainable.function_trainable import wrap_function

from lmray import remote
from lmray.config import Run
from lmray.dataset import open_splits
from lmray.distributed.notice import Heeding, given, heeded
from lmray.distributed.predecessor import wait_while_it_trains
from lmray.distributed.shared_root import require_shared
from lmray.distributed.train import train_on_workers
from lmray.distributed.watching import watched
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from lmray.sweeps.decisions.verdicts import Verdicts
from lmray.sweeps.sweep_directory import StopFile
from lmray.training.device import give_memory_back

_ASKED_TO_STOP = {"kind": "stop"}
"""Told lest Ray Tune print that a job has told nothing."""


def _tell(message: dict[str, Any]) -> None:
    # As text: Ray Tune flattens nested results before a scheduler sees them.
    tune.report({"message": json.dumps(message)})


def job(config: dict[str, Any]) -> None:
    """A job's process: trains until the trial has to leave or is at its end, says how it stands.

    If the sweep was asked to stop it says only that: the ledger goes on saying that the trial runs.
    Rungs that the run has passed without the sweep's knowledge, in another sweep, say, are judged
    by what it wrote down there. The memory is there for the actor's next job; an actor whose job
    raised, with an error that holds on to frames, has none: Ray Tune ends its process (2.60).
    """
    try:
        _train(config)
    finally:
        give_memory_back()


def _train(config: dict[str, Any]) -> None:
    require_shared()
    spec = config["trial"]
    run = Run.model_validate(spec["run"])
    runs = remote.cached(spec["runs"])
    directory = RunDirectory(runs / spec["id"])
    stop = StopFile(remote.cached(spec["stop"]))
    wait_while_it_trains(directory, stop)
    if stop():
        _tell(_ASKED_TO_STOP)
        return
    remote.refresh(directory.path)
    verdicts = Verdicts(remote.cached(spec["ledger"]), spec["id"], spec["levels"], _tell, given)
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
job.__mixins__ = (Heeding,)  # pyrefly: ignore[missing-attribute]


class NamedJob(wrap_function(job)):  # pyrefly: ignore
    """A job in an actor that the Ray dashboard calls by its trial's name."""

    def __repr__(self) -> str:
        return self.trial_name
