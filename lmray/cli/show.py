"""What the command line prints: bars or lines on stderr, results on stdout."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

import lmray.progress

# A pipe has no width: a table in a file is not cut to a terminal's eighty columns.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, highlight=False)


def result(value: Any, text: str, *, as_json: bool) -> None:
    """Prints a result for a machine or for a person."""
    if as_json:
        print(json.dumps(value, indent=2, default=str))
    else:
        print(text)  # as it is: rich makes spaces of tabs and a picture of :smile:


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; numbers to the right."""
    drawn = Table(header_style="bold", box=None, pad_edge=False)
    for index, heading in enumerate(header):
        numeric = all(_is_number(row[index]) for row in rows)
        drawn.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    out.print(drawn)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").removesuffix("%"))
    except ValueError:
        return text == "-"
    return True


def human_bytes(count: float) -> str:
    """1,234,567 bytes as 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def bars(*columns: str) -> Progress:
    """Progress bars on stderr, with extra columns of the fields named."""
    extra = [TextColumn(f"{{task.fields[{name}]}}") for name in columns]
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        *extra,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )


@contextmanager
def progress() -> Iterator[lmray.progress.Progress]:
    """The Progress of the rooms below: a bar a phase, or a line at a phase's start and end."""
    with bars("amount") as drawn:
        tasks: dict[str, TaskID] = {}
        begun: dict[str, float] = {}

        def update(phase: str, done: int, total: int, unit: str) -> None:
            if phase not in tasks:
                tasks[phase] = drawn.add_task(phase, total=total, amount="")
                begun[phase] = time.monotonic()
                if not err.is_terminal:
                    err.print(f"{phase}: {_amount(total, unit)}")
            amount = f"{_amount(done, unit)} of {_amount(total, unit)}"
            drawn.update(tasks[phase], completed=done, total=total, amount=amount)
            if done >= total and not err.is_terminal and phase in begun:
                err.print(f"{phase}: done in {time.monotonic() - begun.pop(phase):.1f} s")

        yield update


def _amount(count: int, unit: str) -> str:
    return human_bytes(count) if unit == "bytes" else f"{count:,} {unit}"
