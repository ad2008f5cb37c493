"""A sweep's ledger: what happened to each trial, one fsynced line an event, never rewritten.

Events, each with the trial's id:

    started   it was given a place, again after it failed (name, changes)
    rung      it was judged at a rung and went on (rung, losses and where they were measured)
    paused    it was judged at a rung and waits there, its place given to another
    promoted  it was given a place again, to go on past a rung (past)
    stopped   it was judged at a rung, or waited there to the end, and does not go on
    diverged  its loss was not finite, or far above a guess (rung: the one it was on its way to)
    failed    its process raised, was lost or was silent for too long (error, lost, saved: the step
              of its newest checkpoint, and trace, unless it was lost: what failures of one cause
              share; older ones have none); of one that had given its place up it means nothing
    retried   somebody asked to run it again after it failed or diverged
    done      it reached its end
    audited   it had been stopped, and was trained to its end to see what was missed

The last of a trial's events that is telling says how it stands.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lmray import remote
from lmray.storage import append_line, read_lines

Kind = Literal[
    "started",
    "rung",
    "paused",
    "promoted",
    "stopped",
    "diverged",
    "failed",
    "retried",
    "done",
    "audited",
]

CLOSED: tuple[Kind, ...] = ("stopped", "diverged", "done")
"""Events after which a trial is not run again; a failed one is."""

Status = Literal["waiting", "running", "paused", "failed", "stopped", "diverged", "done"]
"""How a trial stands, as a reader is told; one that was interrupted runs, too."""

_STATUS: dict[Kind, Status] = {
    "started": "running",
    "rung": "running",
    "promoted": "running",
    "retried": "waiting",
    "paused": "paused",
    "failed": "failed",
    "stopped": "stopped",
    "diverged": "diverged",
    "done": "done",
}


@dataclass(frozen=True)
class Event:
    """One line of the ledger."""

    kind: Kind
    trial: str
    facts: dict[str, Any]


def ignore(event: Event) -> None:
    """An observer that looks at nothing."""


class Ledger:
    """The only writer of a sweep's ledger.jsonl, in the process that drives the sweep."""

    def __init__(self, path: Path, observe: Callable[[Event], None] = ignore) -> None:
        self._path = path
        self._observe = observe

    def append(self, kind: Kind, trial: str, **facts: Any) -> Event:
        """Writes an event to the disk, then shows it to the observer."""
        line = {"event": kind, "trial": trial, "time": round(time.time(), 3), **facts}
        append_line(self._path, line)
        remote.publish(self._path)
        event = Event(kind, trial, facts)
        self._observe(event)
        return event

    def events(self) -> list[Event]:
        """Every event so far, in the order in which it happened."""
        return read_events(self._path)


def read_events(path: Path) -> list[Event]:
    """The events of a ledger file; an absent one has none."""
    return [Event(line.pop("event"), line.pop("trial"), line) for line in read_lines(path)]


def telling(events: Sequence[Event]) -> list[Event]:
    """The events that change how trials stand.

    Audits do not, nor do failures of trials that had already told how they ended, whose processes
    died on their way out; older ledgers have some.
    """
    found: list[Event] = []
    stands: dict[str, Kind] = {}
    for event in events:
        if event.kind == "audited":
            continue
        if event.kind == "failed" and stands.get(event.trial) in (*CLOSED, "paused"):
            continue
        stands[event.trial] = event.kind
        found.append(event)
    return found


def standing(events: Sequence[Event]) -> dict[str, Kind]:
    """How each trial stands: the last of its events that are telling."""
    return {event.trial: event.kind for event in telling(events)}


def statuses(events: Sequence[Event]) -> dict[str, Status]:
    """How each trial that has an event stands, in a reader's words."""
    return {trial: _STATUS[kind] for trial, kind in standing(events).items()}
