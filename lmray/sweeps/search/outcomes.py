"""What a ledger says of each combination, its seeds together: what a sequential search learns from.

A combination is told once all its seeds are closed or paused: the mean of their final losses; or,
if early stopping cut one, their mean where the first was cut; one that diverged ranks last. Before
that it is running, with their mean at the last rung that all of them have passed, if any.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lmray.sweeps.axes import Combination
from lmray.sweeps.ledger import CLOSED, Event, telling

_JUDGED = ("rung", "paused", "stopped")


@dataclass(frozen=True)
class Outcome:
    """How one combination stands."""

    combination: Combination
    state: str
    """running (or not yet begun), done, stopped (or paused), diverged, or failed."""
    loss: float = math.inf
    """Mean validation loss in nats/token over the seeds that are done, or at a rung."""
    tokens: int = 0
    """Training tokens at which a stopped one was cut, or a running one was last judged."""
    seeds: tuple[str, ...] = ()
    """How each seed ended, in their order, as `state` says it; empty for a running one."""
    trials: tuple[str, ...] = ()
    """The trial ids of the seeds, in their order."""


def outcomes(
    groups: Sequence[tuple[Combination, Sequence[str]]], events: Sequence[Event]
) -> list[Outcome]:
    """The outcome of each combination; `groups` has the trial ids of its seeds, in their order."""
    own: dict[str, list[Event]] = {}
    for event in telling(events):
        own.setdefault(event.trial, []).append(event)
    found = []
    for combination, trials in groups:
        begun = [own[trial] for trial in trials if trial in own]
        found.append(replace(_outcome(combination, begun, len(trials)), trials=tuple(trials)))
    return found


def _outcome(combination: Combination, trials: list[list[Event]], seeds: int) -> Outcome:
    ends = [events[-1] for events in trials]
    rungs = [_rungs(events) for events in trials]
    if len([end for end in ends if end.kind in (*CLOSED, "paused", "failed")]) < seeds:
        common = set.intersection(*map(set, rungs)) if len(rungs) == seeds else set()
        return _at(max(common), combination, "running", rungs) if common else _unknown(combination)
    kinds = tuple("stopped" if end.kind == "paused" else end.kind for end in ends)
    for kind in ("diverged", "failed"):
        if kind in kinds:
            return Outcome(combination, kind, seeds=kinds)
    cut = [end.facts["tokens"] for end in ends if end.kind in ("stopped", "paused")]
    if cut:
        return replace(_at(min(cut), combination, "stopped", rungs), seeds=kinds)
    loss = _mean([end.facts["loss"] for end in ends])
    return Outcome(combination, "done", loss, seeds=kinds)


def _unknown(combination: Combination) -> Outcome:
    return Outcome(combination, "running")


def _rungs(events: list[Event]) -> dict[int, float | None]:
    """A trial's losses by the tokens at which they were judged."""
    return {event.facts["tokens"]: event.facts["loss"] for event in events if event.kind in _JUDGED}


def _at(
    tokens: int, combination: Combination, state: str, rungs: list[dict[int, float | None]]
) -> Outcome:
    losses = [each[tokens] for each in rungs if tokens in each]
    return Outcome(combination, state, _mean(losses), tokens)


def _mean(losses: list[float | None]) -> float:
    finite = [loss for loss in losses if loss is not None]
    return statistics.fmean(finite) if len(finite) == len(losses) else math.inf
