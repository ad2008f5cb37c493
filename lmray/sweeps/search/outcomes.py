"""What a ledger says of each combination, its seeds together: what a sequential search learns from.

A combination is told once all its seeds are closed or paused: the mean of their final losses; or,
if early stopping cut one, their mean where the first was cut; one that diverged ranks last.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmray.sweeps.axes import Combination
from lmray.sweeps.ledger import CLOSED, Event


@dataclass(frozen=True)
class Outcome:
    """How one combination stands."""

    combination: Combination
    state: str
    """running (or not yet begun), done, stopped (or paused), or diverged (or failed)."""
    loss: float = float("inf")
    """Mean validation loss in nats/token over the seeds that are done, or that were cut."""
    tokens: int = 0
    """Training tokens at which a stopped one was cut."""


def outcomes(
    groups: Sequence[tuple[Combination, Sequence[str]]], events: Sequence[Event]
) -> list[Outcome]:
    """The outcome of each combination; `groups` has the trial ids of its seeds."""
    last: Mapping[str, Event] = {e.trial: e for e in events if e.kind != "audited"}
    return [
        _outcome(combination, [last[trial] for trial in trials if trial in last], len(trials))
        for combination, trials in groups
    ]


def _outcome(combination: Combination, ends: list[Event], seeds: int) -> Outcome:
    closed = [event for event in ends if event.kind in (*CLOSED, "paused", "failed")]
    if len(closed) < seeds:
        return Outcome(combination, "running")
    kinds = {event.kind for event in closed}
    if kinds & {"diverged", "failed"}:
        return Outcome(combination, "diverged")
    if kinds & {"stopped", "paused"}:
        stopped = [event.facts for event in closed if event.kind in ("stopped", "paused")]
        first = min(facts["tokens"] for facts in stopped)
        cut: list[dict[str, Any]] = [facts for facts in stopped if facts["tokens"] == first]
        return Outcome(combination, "stopped", _mean(cut), first)
    return Outcome(combination, "done", _mean([event.facts for event in closed]))


def _mean(facts: list[dict[str, Any]]) -> float:
    losses = [each["loss"] for each in facts]
    return float("inf") if None in losses else statistics.fmean(losses)
