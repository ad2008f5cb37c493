"""Asynchronous successive halving: who goes on from a rung, as a function of a ledger's events.

Plain Python that knows trial ids, tokens and losses. All of its state is folded from events, so a
sweep that was killed decides as one that was not, whenever that happened.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Literal

from lmray.sweeps.decisions.asha import Asha
from lmray.sweeps.decisions.combinations import Combinations
from lmray.sweeps.ledger import Event

MAX_FAILURES = 1
"""Times a trial that failed is started again, from its newest checkpoint, before its next rung."""

MAX_LOSSES = 5
"""The same for one whose process or node was lost, which is seldom its own doing; if it has got
further in between, the losses before do not count."""

Verdict = Literal["rung", "paused", "stopped", "diverged"]


class Halving:
    """The losses at each rung and what has become of each trial.

    At a rung the best floor(n / eta) of the n losses recorded there may pass. Equal losses rank by
    the order in which they came; one that is not finite ranks last, and its trial has diverged. Of
    fewer than eta losses, or than asha.min_results, there is no telling: a trial then waits (mode
    promote), or is judged by the rung below, where more have come since it passed, and goes on if
    there is no telling there either (mode stop). It also goes on once none of the best is still in
    the race.

    Where combinations have several seeds, mode promote ranks their means: a combination has a loss
    at a rung once all its seeds are there, and when one of them passes all may. Mode stop, in which
    waiting would hold a place, compares each trial with those of its own seed.
    """

    def __init__(self, asha: Asha, budget_tokens: int, *, seeds: int = 1) -> None:
        """`seeds` is how many trials each combination has."""
        self.levels = asha.rungs(budget_tokens)
        self.in_flight: dict[str, None] = {}
        """Trials that hold a place, in the order in which they were given it."""
        self.paused: dict[str, Event] = {}
        """Trials that wait at a rung, by what was judged there."""
        self.given_up: dict[str, None] = {}
        """Trials that have failed too often."""
        self.begun: set[str] = set()
        self._asha = asha
        self._combinations = Combinations(seeds)
        self._losses: dict[int, dict[str, float]] = {level: {} for level in self.levels}
        self._passed: dict[int, dict[str, None]] = {level: {} for level in self.levels}
        self._failures: Counter[tuple[str, bool]] = Counter()
        self._saved: dict[str, int] = {}
        self._done: set[str] = set()

    def apply(self, event: Event) -> None:
        """Takes an event of the ledger into account."""
        trial, level = event.trial, event.facts.get("rung")
        if event.kind == "audited" or (event.kind == "failed" and trial not in self.in_flight):
            return  # as in ledger.telling
        passed = event.facts.get("past") if event.kind == "promoted" else level
        if event.kind in ("promoted", "rung") and passed in self._passed:
            self._passed[passed][self._combinations.of(trial)] = None
        if level in self._losses and trial not in self._losses[level]:
            loss = event.facts.get("loss")
            known = event.kind != "diverged" and loss is not None
            self._losses[level][trial] = loss if known else math.inf
        self.paused.pop(trial, None)
        self.given_up.pop(trial, None)
        if event.kind in ("started", "promoted"):
            self.begun.add(trial)
            self.in_flight[trial] = None
        elif event.kind == "paused":
            self._clear(trial)
            self.paused[trial] = event
        elif event.kind == "failed":
            lost, saved = event.facts.get("lost", False), event.facts.get("saved", 0)
            if saved > self._saved.get(trial, 0):
                self._saved[trial] = saved
                self._failures[trial, True] = 0
            self._failures[trial, lost] += 1
            if self._failures[trial, lost] > (MAX_LOSSES if lost else MAX_FAILURES):
                self.given_up[trial] = None
        elif event.kind == "rung":
            self._clear(trial)
        elif event.kind == "retried":
            self._forget(trial)
        if event.kind == "done":
            self._done.add(trial)
        self._combinations.apply(event, given_up=trial in self.given_up)
        if event.kind in ("paused", "stopped", "diverged", "done") or trial in self.given_up:
            self.in_flight.pop(trial, None)

    def _forget(self, trial: str) -> None:
        self._clear(trial)
        self._saved.pop(trial, None)
        self.begun.discard(trial)
        for losses in self._losses.values():
            if losses.get(trial) == math.inf:
                del losses[trial]

    def _clear(self, trial: str) -> None:
        for lost in (False, True):
            self._failures[trial, lost] = 0

    def judged(self, trial: str, level: int) -> bool:
        """Whether the trial's loss at a rung is known."""
        return trial in self._losses[level]

    def unjudged(self, trial: str, tokens: float = math.inf) -> list[int]:
        """The rungs up to `tokens` at which the trial has no loss, ascending."""
        return [each for each in self.levels if each <= tokens and not self.judged(trial, each)]

    def verdict(self, trial: str, level: int, loss: float) -> Verdict:
        """What becomes of a trial that has reached a rung with a loss that is not yet recorded.

        A trial whose turn it would be as soon as it waited does not wait.
        """
        if not math.isfinite(loss):
            return "diverged"
        losses = {**self._losses[level], trial: loss}
        if self._asha.mode == "stop":
            return "rung" if self._stays(trial, level, losses) else "stopped"
        if any(self._promotable_at(above) for above in self.levels if above > level):
            return "paused"
        return "rung" if self._first_waiting(losses, level, trial) == trial else "paused"

    def _stays(self, trial: str, level: int, losses: Mapping[str, float]) -> bool:
        """Mode stop: whether a trial is among the best of the highest rung that can tell.

        Those that come first meet nobody at a rung, and would train to their end however bad. No
        trial makes room for some that were all stopped since, or none might reach the end.
        """
        below = [self._losses[each] for each in reversed(self.levels) if each < level]
        for known in (losses, *below):
            best = self._best(self._combinations.same_seed(trial, known))
            if best is not None and trial in known:
                return trial in best or not any(
                    other in self.in_flight or other in self._done for other in best
                )
        return True

    def promotable(self) -> tuple[str, int] | None:
        """The trial to let past the rung where it waits, and that rung: of the highest, the best.

        None if none is among the best of its rung.
        """
        for level in reversed(self.levels):
            if trial := self._promotable_at(level):
                return trial, level
        return None

    def last_resort(self) -> tuple[str, int] | None:
        """The best trial of the highest rung, where all wait and none is done.

        So few have got there that the rule lets none past, but a sweep has an answer.
        """
        if self._done or not self.paused:
            return None
        level = max(event.facts["rung"] for event in self.paused.values())
        losses = self._losses[level]
        means = self._combinations.means(losses)

        def rank(trial: str) -> tuple[float, float]:
            return means.get(self._combinations.of(trial), math.inf), losses[trial]

        return min(self._waiting(level), key=rank), level

    def _waiting(self, level: int) -> list[str]:
        return [t for t, event in self.paused.items() if event.facts["rung"] == level]

    def _promotable_at(self, level: int) -> str | None:
        return self._first_waiting(self._losses[level], level)

    def _first_waiting(
        self, losses: Mapping[str, float], level: int, arriving: str = ""
    ) -> str | None:
        """Of the trials that wait at a rung, or arrive, the one to let past: first the seeds of
        combinations of which another has passed, unless one diverged, then those of the best.
        """
        waiting = self._waiting(level)
        means = self._combinations.means(losses)
        passed = [who for who in self._passed[level] if means.get(who) != math.inf]
        for combination in [*passed, *(self._best(means) or [])]:
            for trial in [arriving, *waiting] if arriving else waiting:
                if self._combinations.of(trial) == combination:
                    return trial
        return None

    def _best(self, losses: Mapping[str, float]) -> list[str] | None:
        """Those who may pass, the best first; None if there are too few to tell."""
        if len(losses) < max(self._asha.reduction_factor, self._asha.min_results):
            return None
        finite = [who for who, loss in losses.items() if math.isfinite(loss)]
        ranked = sorted(finite, key=losses.__getitem__)
        return ranked[: len(losses) // self._asha.reduction_factor]
