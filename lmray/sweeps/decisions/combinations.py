"""Seeds at a rung: which trials are one combination, and what their losses are worth together."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

from lmray.sweeps.axes import identity
from lmray.sweeps.ledger import Event


class Combinations:
    """The trials of a sweep by what they try, as the events of their ledger have it.

    With one seed each trial is a combination of its own.
    """

    def __init__(self, seeds: int) -> None:
        """`seeds` is how many trials a combination has, begun or not."""
        self._seeds = seeds
        self._changes: dict[str, dict[str, Any]] = {}
        self._members: dict[str, list[str]] = {}
        self._out: dict[str, bool] = {}

    def apply(self, event: Event, *, given_up: bool) -> None:
        """Takes an event into account; `given_up` says that it is a failure too many."""
        trial = event.trial
        if "changes" in event.facts and trial not in self._changes:
            self._changes[trial] = event.facts["changes"]
        members = self._members.setdefault(self.of(trial), [])
        if trial not in members:
            members.append(trial)
        self._out.pop(trial, None)
        if given_up or event.kind in ("stopped", "diverged", "done"):
            self._out[trial] = event.kind == "diverged"

    def of(self, trial: str) -> str:
        """The name of a trial's combination."""
        if self._seeds == 1 or trial not in self._changes:
            return trial
        changes = {key: value for key, value in self._changes[trial].items() if key != "seed"}
        return identity(changes)

    def same_seed(self, trial: str, losses: Mapping[str, float]) -> dict[str, float]:
        """The losses of trials with the seed of `trial`, in their order."""
        if self._seeds == 1:
            return dict(losses)
        seed = self._seed(trial)
        return {other: loss for other, loss in losses.items() if self._seed(other) == seed}

    def _seed(self, trial: str) -> Any:
        return self._changes.get(trial, {}).get("seed")

    def means(self, losses: Mapping[str, float]) -> dict[str, float]:
        """The mean loss of each combination of which all seeds are at a rung with these losses.

        A seed that was closed or given up before the rung is not waited for. A combination that has
        diverged in any seed is worth infinity at once. In the order in which they were complete, or
        for want of a last arrival in that of the last seed that did arrive.
        """
        last = {self.of(trial): place for place, trial in enumerate(losses)}
        found = {}
        for combination in sorted(last, key=last.__getitem__):
            members = self._members.get(combination, [combination])
            here = [losses[trial] for trial in members if trial in losses]
            gone = [trial for trial in members if trial not in losses and trial in self._out]
            if math.inf in here or any(self._out.get(trial) for trial in members):
                found[combination] = math.inf
            elif len(here) + len(gone) >= self._seeds:
                found[combination] = statistics.fmean(here)
        return found
