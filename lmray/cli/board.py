"""`lmray board`: the finished runs, ranked."""

from typing import TYPE_CHECKING, Any

from lmray.cli.options import DEFAULT_ROOT, Json, Root

if TYPE_CHECKING:
    from lmray.runs.board import Entry, Group

_MOST_CHANGES = 5
"""Changes against a preset that a line of the table has room for; --json has all."""


def board(root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Rank all finished runs beneath the root by final loss, those of each dataset together.

    The loss is of the whole validation split. Between datasets compare bits per byte alone, and
    only of the same text. Where others have reported losses of a preset at its budget, a run of it
    is said to be inside or outside of their band.
    """
    from dataclasses import asdict

    from lmray.cli.show import out, progress, result, table
    from lmray.runs.board import board as ranked

    with progress() as show:
        groups = ranked(root / "runs", progress=show)
    if json:
        result({"root": str(root), "groups": [asdict(group) for group in groups]}, "", as_json=True)
        return
    if not groups:
        result(None, f"no run beneath {root / 'runs'} is done yet", as_json=False)
    header = ["", "run", "loss", "bits/byte", "preset", "changes", "context", "tokens", "seconds"]
    for group in groups:
        out.print(_heading(group), markup=False)
        rows = [[str(rank), *_row(each)] for rank, each in enumerate(group.entries, start=1)]
        table([*header, "hardware", "date", "expected"], rows)
        out.print()
    for source in {_source(each): None for g in groups for each in g.entries if each.band}:
        out.print(source, markup=False)


def _heading(group: "Group") -> str:
    return (
        f"{group.dataset}: vocabulary {group.vocab_size:,}, data {group.digest[:12]}, "
        f"{len(group.entries)} runs"
    )


def _row(entry: "Entry") -> list[str]:
    band = entry.band
    verdict = "-"
    if band is not None:
        where = "inside" if band.holds(entry.loss) else "outside"
        verdict = f"{where} {band.low:.2f} to {band.high:.2f}"
    return [
        entry.run,
        f"{entry.loss:.4f}",
        f"{entry.bits_per_byte:.4f}",
        entry.preset,
        _changes(entry.changes),
        str(entry.context_length),
        f"{entry.tokens:,}",
        f"{entry.seconds:,.0f}",
        entry.hardware,
        entry.date[:10],
        verdict,
    ]


def _changes(changes: dict[str, Any]) -> str:
    from lmray.sweeps.axes import spoken

    first = dict(list(changes.items())[:_MOST_CHANGES])
    more = len(changes) - len(first)
    return spoken(first) + (f" and {more} more" if more else "")


def _source(entry: "Entry") -> str:
    band = entry.band
    assert band is not None
    return f"expected of {band.preset}, {band.low:.2f} to {band.high:.2f}: {band.source}"
