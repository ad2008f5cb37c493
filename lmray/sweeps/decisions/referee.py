"""The referee of a sweep: gives places to trials, judges them at rungs, writes all of it down.

It knows nothing of Ray: whoever runs the trials takes jobs from it and tells it what happened. Each
decision is made when the loss or the end that calls for it arrives, and is one line of the ledger,
so that it depends only on the order in which these arrived.
"""

import shutil
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from lmray import remote
from lmray.sweeps.decisions.alike import Alike
from lmray.sweeps.decisions.asha import Asha
from lmray.sweeps.decisions.halving import Halving
from lmray.sweeps.ledger import Event, Kind, Ledger, standing
from lmray.sweeps.space import Trial
from lmray.training.loop import never

_MEASURED = ("step", "tokens", "loss", "bits_per_byte", "perplexity", "seconds")


class Referee:
    """Halving applied to the trials of a sweep, on as many places as there are."""

    def __init__(
        self,
        asha: Asha,
        budget_tokens: int,
        ledger: Ledger,
        trials: Iterable[Trial],
        *,
        places: int,
        seeds: int = 1,
        stop: Callable[[], bool] = never,
    ) -> None:
        """Goes on where the ledger ends: trials that had a place get one first.

        `trials`, as many of each combination as there are `seeds`, are looked through for one that
        has not begun whenever a place is free. While
        `stop()` no place is given to anybody.
        """
        self._rule = Halving(asha, budget_tokens, seeds=seeds)
        self._ledger = ledger
        self._trials = trials
        self._places = places
        self._stop = stop
        self._leaving: set[str] = set()
        self._alike = Alike()
        self.broken = ""
        """Why the sweep must not go on; empty while it may."""
        events = ledger.events()
        for event in events:
            self._rule.apply(event)
            self._alike.apply(event)
        self.jobs: deque[str] = deque(self._rule.in_flight)
        """Trials to be run, or to be gone on with, as soon as their last process has ended."""
        stands = standing(events)
        for trial in [each for each in self.jobs if stands[each] == "failed"]:
            self._give_place(trial, "started")
        self._fill()

    @property
    def levels(self) -> tuple[int, ...]:
        """The rungs, in tokens."""
        return self._rule.levels

    @property
    def finished(self) -> bool:
        """Whether no trial has a place any more; then none waits for one either."""
        return not self._rule.in_flight

    def judge(self, trial: str, record: dict[str, Any]) -> None:
        """Decides on a trial by its validation record at a rung, unless that has been done.

        Raises KeyError if the record lacks a measurement.
        """
        level = record["tokens"]
        measured = {key: record[key] for key in _MEASURED}
        if self._rule.judged(trial, level):
            return
        loss = float("nan") if measured["loss"] is None else measured["loss"]
        verdict = self._rule.verdict(trial, level, loss)
        if verdict != "rung":
            self._leaving.add(trial)
        self._append(verdict, trial, rung=level, **measured)
        self._fill()

    def ended(self, trial: str, status: str, facts: dict[str, Any]) -> None:
        """Takes down how a trial's process ended; one that left at a rung has been judged there."""
        if self._left(trial):
            return
        tokens = facts["tokens"]
        if status == "done" and facts["loss"] is None:
            status = "diverged"  # a run of before the loop said so itself
        if status == "diverged":
            # It ranks last at the rung it was on its way to.
            ahead = [level for level in self._rule.unjudged(trial) if level >= tokens]
            self._append("diverged", trial, **facts, **({"rung": ahead[0]} if ahead else {}))
        elif status == "done" and not (skipped := self._rule.unjudged(trial, tokens)):
            self._append("done", trial, **facts)
        else:
            error = f"it ended with status {status} before its budget did"
            if status == "done":
                error = f"it trained past {skipped[0]} tokens without a validation loss there"
            self.failed(trial, error, trace=error)
            return
        self._fill()

    def failed(
        self, trial: str, error: str, *, trace: str, lost: bool = False, saved: int = 0
    ) -> None:
        """Takes down a failure; the trial keeps its place unless it has failed too often.

        `trace` is a text that failures of the same cause share; `lost` says that the process went
        without raising anything, `saved` the step of its newest checkpoint.
        """
        if self._left(trial) or trial not in self._rule.in_flight:
            return  # it died on its way out, and goes on from an older checkpoint if it does
        facts = {"error": error, "lost": lost, "saved": saved}
        event = self._append("failed", trial, **facts, **({} if lost else {"trace": trace}))
        if alike := self._alike.apply(event):
            self.broken = (
                f"{len(set(alike))} trials failed alike, {len(alike)} times: {error}; correct that "
                f"and resume the sweep"
            )
        elif trial in self._rule.in_flight:
            self._give_place(trial, "started")
        else:
            self._fill()

    def _left(self, trial: str) -> bool:
        """Whether the process that ended was one that had to leave; it may have a place again."""
        leaving = trial in self._leaving
        self._leaving.discard(trial)
        return leaving

    def _unbegun(self) -> Trial | None:
        return next((trial for trial in self._trials if trial.id not in self._rule.begun), None)

    def _append(self, kind: Kind, trial: str, **facts: Any) -> Event:
        event = self._ledger.append(kind, trial, **facts)
        self._rule.apply(event)
        return event

    def _give_place(self, trial: str, kind: Kind, **facts: Any) -> None:
        self._append(kind, trial, **facts)
        if trial not in self.jobs:
            self.jobs.append(trial)

    def _fill(self) -> None:
        """Gives the free places away, to those who may go on before those who have not begun."""
        if self._stop():
            return
        while len(self._rule.in_flight) < self._places:
            if found := self._rule.promotable():
                self._give_place(found[0], "promoted", past=found[1])
            elif trial := self._unbegun():
                self._give_place(trial.id, "started", name=trial.name, changes=trial.changes)
            elif self._rule.in_flight:
                return
            elif found := self._rule.last_resort():
                self._give_place(found[0], "promoted", past=found[1])
            else:
                break
        if not self._rule.in_flight:
            for trial, event in list(self._rule.paused.items()):
                measured = {key: event.facts[key] for key in event.facts if key != "time"}
                self._append("stopped", trial, **measured)


def given_up(asha: Asha, budget_tokens: int, events: Iterable[Event]) -> list[str]:
    """The trials that have failed too often; others that failed were about to be started again."""
    rule = Halving(asha, budget_tokens)
    for event in events:
        rule.apply(event)
    return list(rule.given_up)


Retry = Literal["failed", "diverged", "all", "none"]


def reopen(asha: Asha, budget_tokens: int, ledger: Ledger, runs: Path, retry: Retry) -> list[str]:
    """Lets trials run again that have failed too often or diverged; returns which.

    A diverged one begins anew, for its run would end at once: its directory beneath `runs` goes.
    """
    events = ledger.events()
    diverged = [trial for trial, kind in standing(events).items() if kind == "diverged"]
    again = given_up(asha, budget_tokens, events) if retry in ("failed", "all") else []
    for trial in diverged if retry in ("diverged", "all") else []:
        remote.remove(runs / trial)
        shutil.rmtree(runs / trial, ignore_errors=True)
        again.append(trial)
    for trial in again:
        ledger.append("retried", trial)
    return again
