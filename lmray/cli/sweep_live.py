"""A sweep under way, on a terminal as one live table, elsewhere as a line an event."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lmray.cli.show import err

if TYPE_CHECKING:
    from lmray.sweeps.ledger import Event
    from lmray.sweeps.space import Space
    from lmray.sweeps.standing import Standing

_FIRST = ("running", "failed", "done", "paused", "diverged", "stopped", "waiting")
"""What is shown where the terminal has no room for all."""
_COLOURS = {"running": "cyan", "done": "green", "diverged": "magenta", "failed": "red"}
_LOOK_S = 2.0


def standings_table(space: "Space", found: "list[Standing]", *, most: int) -> Table:
    """The trials that matter most, `most` of them at most, in the order of their start."""
    from lmray.sweeps.axes import shown

    keys = [key.rpartition(".")[2] for key in space.axes]
    drawn = Table(header_style="bold", box=None, pad_edge=False)
    for heading in ("trial", *keys, "seed"):
        drawn.add_column(heading)
    if "batch_size" not in keys:
        drawn.add_column("batch", justify="right")
    for heading in ("tokens", "loss", "rung", "status", "ETA"):
        drawn.add_column(heading, justify="left" if heading == "status" else "right")
    first = sorted(found, key=lambda each: _FIRST.index(each.status))
    kept = {each.trial.id for each in first[:most]}
    for each in [each for each in found if each.trial.id in kept]:
        trial = each.trial
        cells: list[str | Text] = [trial.id[:6], *(shown(trial.value(key)) for key in space.axes)]
        cells.append(str(trial.changes["seed"]))
        if "batch_size" not in keys:
            cells.append(str(trial.run.data.batch_size))
        cells.append(f"{each.tokens:,}")
        cells.append("-" if each.loss is None else f"{each.loss:.4f}")
        cells.append(f"{each.rung:,}" if each.rung else "-")
        cells.append(Text(each.status, style=_COLOURS.get(each.status, "")))
        cells.append("-" if each.eta_s is None else _time(each.eta_s))
        drawn.add_row(*cells)
    return drawn


def tally(found: "list[Standing]") -> str:
    """How many trials are in which state."""
    counts = {status: sum(each.status == status for each in found) for status in _FIRST}
    return f"{len(found)} trials: " + ", ".join(f"{n} {s}" for s, n in counts.items() if n)


def _time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class _Board:
    """The table as it is at the moment of being drawn; the disk is looked at every two seconds."""

    def __init__(self, directory: Path, runs: Path, audited: Collection[str]) -> None:
        self._directory, self._runs, self._audited = directory, runs, audited
        self._begun = time.monotonic()
        self._looked = float("-inf")
        self._shown: tuple[Space, list[Standing]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from lmray.sweeps.standing import trials_standing
        from lmray.sweeps.sweep_directory import read_space

        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            space, digest = read_space(self._directory)
            found = trials_standing(space, digest, self._directory, self._runs, self._audited)
            self._shown = space, found
            self._looked = now
        space, found = self._shown
        room = max(4, console.size.height - 4)
        line = f"{tally(found)}; {_time(now - self._begun)} so far"
        if len(found) > room:
            line += f"; {len(found) - room} not shown"
        yield Group(standings_table(space, found, most=room), Text(line, style="dim"))


@contextmanager
def watching(
    directory: Path, runs: Path, audited: Collection[str] = ()
) -> "Iterator[Callable[[Event], None]]":
    """An observer of a sweep's events, or of an audit's, that shows how it goes on stderr."""
    if err.is_terminal:
        with Live(_Board(directory, runs, audited), console=err, refresh_per_second=1):
            yield lambda event: None
    else:
        yield lines(directory)


def lines(directory: Path) -> "Callable[[Event], None]":
    """An observer of a sweep's or an audit's events that says each in a line on stderr."""
    from lmray.sweeps.ledger import read_events

    events = read_events(directory / "ledger.jsonl")
    names = {event.trial: event.facts["name"] for event in events if "name" in event.facts}

    def observe(event: "Event") -> None:
        if "name" in event.facts:
            names[event.trial] = event.facts["name"]
        err.print(f"{names.get(event.trial, event.trial)}: {_line(event)}", markup=False)

    return observe


def _line(event: "Event") -> str:
    facts = event.facts
    loss = facts.get("loss")
    shown = f"{loss:.4f}" if loss is not None else "not finite"
    if event.kind == "started":
        return "started"
    if event.kind == "retried":
        return "to be run again"
    if event.kind == "rung":
        return f"{facts['rung']:,} tokens, loss {shown}, goes on"
    if event.kind in ("paused", "stopped"):
        return f"{facts['rung']:,} tokens, loss {shown}, {event.kind}"
    if event.kind == "promoted":
        return f"goes on past {facts['past']:,} tokens"
    if event.kind == "audited":
        return f"audited, {facts['status']}, loss {shown}"
    if event.kind == "done":
        return f"done, loss {shown}"
    if event.kind == "diverged":
        return f"diverged at {facts['tokens']:,} tokens"
    if event.kind == "failed":
        return f"failed: {facts.get('error', 'see its run.json')}"
    raise ValueError(f"no line for an event of kind {event.kind}")
