"""The referee's ear and hand in Ray Tune: a searcher that gives out jobs, a scheduler that listens.

A job is a stretch of a trial: from its newest checkpoint to the rung where it has to leave, or to
its end. Each is a Tune trial of its own, in an actor that the next job uses again, and returns of
its own accord; so a paused trial holds nothing, and Tune's own pause, stop and restore, which
forget schedulers and cut off checkpoints (ray 2.60), are not needed.
"""

import json
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import cloudpickle
from ray.exceptions import RayActorError
from ray.tune import Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from lmray import remote
from lmray.runs.run_directory import RunDirectory
from lmray.storage import write_bytes
from lmray.training.checkpoint import newest_step

_LOOK_S = 1.0
"""Seconds between looks at whether the trials still write."""

_COUNT_S = 10.0
"""Seconds between counts of the nodes."""


class Judge(Protocol):
    """What runs jobs needs of a referee or an auditor."""

    jobs: Any
    broken: str

    @property
    def finished(self) -> bool:
        """Whether there will be no more jobs."""

    def judge(self, trial: str, record: dict[str, Any]) -> None:
        """Takes a validation record at a rung."""

    def ended(self, trial: str, status: str, facts: dict[str, Any]) -> None:
        """Takes how a job ended."""

    def failed(
        self, trial: str, error: str, *, trace: str, lost: bool = False, saved: int = 0
    ) -> None:
        """Takes a failure; `saved` is the step of the newest checkpoint."""


class _Stateless:
    """What Ray Tune pickles into its scratch directory, and what nobody reads there."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Jobs(_Stateless, Searcher):
    """Gives Ray Tune the referee's jobs, a trial's next one once its last process is gone."""

    def __init__(
        self,
        judge: Judge,
        spec: Callable[[str], dict[str, Any]],
        stop: Callable[[], bool],
        after: Callable[[], None],
        look: Callable[[], None],
    ) -> None:
        """`spec` says what a trial's process needs to know; no job is given out once `stop()`.

        `after` is called when a job has ended, `look` whenever Tune asks for one: where nothing
        runs it does nothing else for ten minutes (2.60).
        """
        super().__init__()
        self._judge = judge
        self._spec = spec
        self._stop = stop
        self._after = after
        self._look = look
        self._alive: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next job, None while there is none."""
        self._look()
        if self._judge.broken or self._judge.finished or self._stop():
            return Searcher.FINISHED
        for trial in self._judge.jobs:
            if trial not in self._alive.values():
                self._judge.jobs.remove(trial)
                self._alive[trial_id] = trial
                return {"trial": self._spec(trial)}
        return None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A job's process has ended, or is about to."""
        self._alive.pop(trial_id, None)
        self._after()

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the ledger has it all."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class AshaScheduler(_Stateless, FIFOScheduler):
    """Brings what trials report to the referee, and kills those that are silent for too long.

    A trial reports {"message": JSON text}: a validation record at a rung, kind "ended" with status
    and facts, or kind "stop" where the sweep was asked to. The scheduler runs in the process that
    drives the sweep and writes the ledger.
    """

    def __init__(self, judge: Judge, directory: Path, runs: Path, *, timeout_s: float) -> None:
        """`directory` is the sweep's: tracebacks of trials are left in its folder errors."""
        super().__init__()
        self._judge = judge
        self._errors = directory / "errors"
        self._runs = runs
        self._timeout_s = timeout_s
        self._looked = 0.0
        self._heard: dict[str, tuple[int, float]] = {}
        self._silent: set[str] = set()
        self._failed: set[str] = set()
        self._trials: Callable[[], Iterable[Trial]] = tuple

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Takes down what a trial reports; what follows from it, the trial reads in the ledger."""
        identifier, message = trial.config["trial"]["id"], json.loads(result["message"])
        if message["kind"] == "ended":
            self._judge.ended(identifier, message["status"], message["facts"])
        elif message["kind"] == "validation":
            self._judge.judge(identifier, message)
        return TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Takes down a failure with the last line of what was raised, and where the rest is."""
        self._failed.add(trial.trial_id)
        identifier = trial.config["trial"]["id"]
        if trial.trial_id in self._silent:
            error = (
                f"no new record in its metrics for {self._timeout_s:g} s; if a start, an "
                f"evaluation or a compilation takes that long, raise asha.timeout_s"
            )
            self._judge.failed(identifier, error, trace="silence")
            return
        text = Path(trial.error_file).read_text() if trial.error_file else ""
        error, lost = (text.strip().splitlines() or [""])[-1], _lost(trial)
        error = "its process was lost; what Ray says" if lost or not text else f"{error}; traceback"
        error = f"{error}: {self._note(identifier, text)}"
        checkpoints = RunDirectory(self._runs / identifier).checkpoints
        remote.refresh(checkpoints)
        saved = newest_step(checkpoints)
        self._judge.failed(identifier, error, trace=cause(text), lost=lost, saved=saved)

    def _note(self, trial: str, text: str) -> str:
        """Leaves a failure's text behind those that the trial had before; returns where."""
        path = self._errors / f"{trial}.txt"
        before = path.read_bytes() if path.exists() else b""
        write_bytes(path, before + text.encode())
        remote.publish(path)
        return remote.url(path) or str(path)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Remembers whose trials there are to look at."""
        self._trials = tune_controller.get_trials

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """First in, first out; Tune asks so often that the silent ones are looked for here."""
        self.look()
        return super().choose_trial_to_run(tune_controller)

    def look(self) -> None:
        """Looks for trials that nobody tells of, once a second however often it is called."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            for trial in self._trials():
                if trial.status == Trial.RUNNING:
                    self._listen(trial, now)
                elif trial.status == Trial.ERROR and trial.trial_id not in self._failed:
                    # Ray Tune tells nobody, and gives such a trial further actors, too (2.60).
                    self._judge.broken = (
                        "an actor could not be used again, for the thread of its last job had not "
                        "ended; `lmray sweep resume` goes on from the checkpoints"
                    )

    def _listen(self, trial: Trial, now: float) -> None:
        path = self._runs / trial.config["trial"]["id"] / "metrics.jsonl"
        size = path.stat().st_size if path.exists() else 0
        seen, since = self._heard.get(trial.trial_id, (-1, now))
        if size != seen:
            self._heard[trial.trial_id] = (size, now)
        elif now - since > self._timeout_s / 2 and remote.refresh(path):
            return  # a run on another node, seen at its checkpoints
        elif now - since > self._timeout_s and trial.trial_id not in self._silent:
            # An actor whose thread hangs cannot be asked to stop, nor used again.
            if actor := trial.temporary_state.ray_actor:
                self._silent.add(trial.trial_id)
                ray.kill(actor)


class Broken(_Stateless, Stopper):
    """Ends what runs once the referee says that the sweep must not go on, or no node is left.

    Without one, this machine's raylet having died, Ray would wait for ever.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._looked = time.monotonic()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial alone."""
        return False

    def stop_all(self) -> bool:
        """All, or none."""
        now = time.monotonic()
        if not self._judge.broken and now - self._looked >= _COUNT_S:
            self._looked = now
            if not any(node["Alive"] for node in ray.nodes()):
                self._judge.broken = (
                    "no node of Ray is left: its raylet was killed, or ran out of memory; "
                    "`lmray sweep resume` goes on from the checkpoints"
                )
        return bool(self._judge.broken)


def _lost(trial: Trial) -> bool:
    """Whether a trial's process was lost, and did not raise what ended it."""
    path = trial.pickled_error_file
    # Ray Tune's own note of this moment; get_pickled_error looks where it is copied to later.
    return bool(path) and isinstance(cloudpickle.loads(Path(path).read_bytes()), RayActorError)


def cause(traceback: str) -> str:
    """What failures of one cause share: the last traceback's lines of code and the error's kind.

    Its message may name a path or a number that differs.
    """
    frames = re.findall(r'^ *File "(.+)", line (\d+), in (.+)$', traceback, re.MULTILINE)
    last = (traceback.strip().splitlines() or [""])[-1]
    return json.dumps([frames[-3:], last.partition(":")[0]])
