"""What a sweep's trials wait for before they train: seconds up to their first steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from lmray.runs.run_directory import RunDirectory
from lmray.sweeps.ledger import Event


@dataclass(frozen=True)
class Starts:
    """Seconds by the clocks of the nodes, which the ledger and the runs wrote down."""

    first_s: float
    """From the ledger's first event to the first step of any trial; Ray has started before."""
    waits_s: tuple[float, ...]
    """From each event that gave a trial a place to its first step from there: process, imports,
    model, checkpoint, the evaluation before step 1, and what a trial before it still wrote."""

    def sentence(self) -> str:
        """Both in one line."""
        return (
            f"{self.first_s:.2f} s from the sweep's first event to the first step of a trial; "
            f"{median(self.waits_s):.2f} s from a trial's place to its first step there "
            f"(median, n = {len(self.waits_s)})"
        )


def starts(events: Sequence[Event], runs: Path) -> Starts | None:
    """What the starts of a sweep took; None where no run says when it took its first step.

    A place counts if the trial made a step before its next event, so not one whose run was done
    in another sweep or that failed on its way. No event tells of a trial that a killed or stopped
    sweep goes on with, so such lives are not among them.
    """
    moments = {trial: _moments(runs / trial) for trial in {event.trial for event in events}}
    until: dict[str, float] = {}
    begun: list[tuple[float, float]] = []
    for event in reversed(events):
        time = event.facts["time"]
        end = until.get(event.trial, float("inf"))
        own = [each for each in moments[event.trial] if time <= each < end]
        if event.kind in ("started", "promoted") and own:
            begun.append((time, own[0]))
        until[event.trial] = time
    if not begun:
        return None
    first = min(step for _, step in begun) - events[0].facts["time"]
    return Starts(first, tuple(step - time for time, step in reversed(begun)))


def _moments(path: Path) -> list[float]:
    """When each life of a run took its first step, of those that say so."""
    run = RunDirectory(path)
    lives = run.facts["lives"] if run.status != "absent" else []
    return [life["first_step_at"] for life in lives if "first_step_at" in life]
