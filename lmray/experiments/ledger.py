"""A sweep's ledger: what happened to each trial, one fsynced line an event, never rewritten.

Events, each with the trial's id: started · rung (it went on from there) · stopped (at a rung) ·
diverged (on its way to one) · done · failed (error). The last of a trial's events says how it
stands.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lmray.storage import append_line, read_lines

Kind = Literal["started", "rung", "stopped", "diverged", "done", "failed"]

CLOSED: tuple[Kind, ...] = ("stopped", "diverged", "done")
"""Events after which a trial is not run again; a failed one is."""


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

    def append(self, kind: Kind, trial: str, **facts: Any) -> None:
        """Writes an event to the disk, then shows it to the observer."""
        line = {"event": kind, "trial": trial, "time": round(time.time(), 3), **facts}
        append_line(self._path, line)
        self._observe(Event(kind, trial, facts))

    def events(self) -> list[Event]:
        """Every event so far, in the order in which it happened."""
        return read_events(self._path)


def read_events(path: Path) -> list[Event]:
    """The events of a ledger file; an absent one has none."""
    return [Event(line.pop("event"), line.pop("trial"), line) for line in read_lines(path)]


def standing(events: list[Event]) -> dict[str, Kind]:
    """How each trial stands: running (its last event is started or rung), or closed or failed."""
    return {event.trial: event.kind for event in events}
