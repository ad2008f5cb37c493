"""`lmray sweep`: run the trials of a space under ASHA, look at them, report them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmray.cli.options import DEFAULT_ROOT, Address, Json, Overrides, Root, locate, place_data

if TYPE_CHECKING:
    from lmray.experiments.ledger import Event
    from lmray.experiments.space import Space
    from lmray.experiments.tables import Sweep

app = typer.Typer(help="Ask a question with many runs; read the answer.", no_args_is_help=True)

Directory = Annotated[str, typer.Argument(help="A sweep: its directory or its name.")]


@app.command()
def run(
    space: Annotated[
        str, typer.Argument(help="A Python file, or the name of a space lmray ships.")
    ],
    changes: Overrides = None,
    name: Annotated[
        str, typer.Option(help="Kept in ROOT/sweeps/NAME; default: the space's name.")
    ] = "",
    address: Address = "",
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Run a space's trials; the same command again finishes a sweep that was interrupted."""
    from dataclasses import replace

    import lmray.distributed  # noqa: F401 - sets Ray's environment before a space imports Ray
    from lmray.config import parse_assignments
    from lmray.experiments.space_file import load_space

    asked = load_space(space).with_overrides(parse_assignments(changes or []))
    placed = replace(asked, base=place_data(asked.base, root))
    _run_and_show(
        placed, root / "sweeps" / (name or asked.name), root / "runs", address, as_json=json
    )


@app.command()
def resume(
    directory: Directory, address: Address = "", root: Root = DEFAULT_ROOT, json: Json = False
) -> None:
    """Finish an interrupted sweep from its sweep.json and ledger."""
    from lmray.experiments.sweep_directory import read_space

    found = locate(directory, root, "sweeps")
    space, _ = read_space(found)
    _run_and_show(space, found, root / "runs", address, as_json=json)


@app.command()
def status(directory: Directory, root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Say how each trial of a sweep stands, also while it runs."""
    from lmray.experiments.tables import read_sweep

    show_trials(read_sweep(locate(directory, root, "sweeps"), root / "runs"), as_json=json)


@app.command()
def report(directory: Directory, root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Write a sweep's report again from its ledger: report.md, pictures, table as csv."""
    from lmray.cli.show import result
    from lmray.experiments.report import write_report
    from lmray.experiments.tables import read_sweep

    path = write_report(read_sweep(locate(directory, root, "sweeps"), root / "runs"), root / "runs")
    result({"report": str(path)}, str(path), as_json=json)


def carry_out(space: "Space", directory: Path, runs: Path, address: str) -> "tuple[Sweep, Path]":
    """Runs what is left of a sweep and writes its report; returns both, the latter's path."""
    from lmray.dataset import open_splits
    from lmray.experiments.report import write_report
    from lmray.experiments.sweep_directory import claim, is_closed
    from lmray.experiments.tables import read_sweep
    from lmray.storage import locked
    from lmray.training.loop import check_data

    splits = open_splits(space.base.data.tokens)
    for _, trial in space.runs():
        check_data(trial, splits)
    claim(directory, space, splits.digest)
    if not is_closed(directory, space, splits.digest):
        from lmray.distributed.cluster import ray_session
        from lmray.distributed.tune import run_sweep

        # The dashboard is what frees the workers of a stopped trial that has several (ray 2.60).
        several = space.base.execution.workers > 1
        busy = f"another process is running {directory}; wait for it or stop it"
        with (
            locked(directory, busy),
            ray_session(address, dashboard=several),
            _watching(space, directory) as observe,
        ):
            run_sweep(space, splits, directory, runs, observe=observe)
    sweep = read_sweep(directory, runs)
    return sweep, write_report(sweep, runs)


def _run_and_show(
    space: "Space", directory: Path, runs: Path, address: str, *, as_json: bool
) -> None:
    from lmray.cli.show import result
    from lmray.experiments.report import answer

    sweep, path = carry_out(space, directory, runs, address)
    show_trials(sweep, as_json=as_json)
    if not as_json:
        result(None, f"{answer(sweep)}\nreport: {path}", as_json=False)
    leave(sweep)


def leave(sweep: "Sweep") -> None:
    """Exits with 130 if the sweep was interrupted and 4 if a trial failed."""
    from lmray.cli.show import err

    states = {row.status for row in sweep.rows}
    if states & {"running", "waiting"}:
        err.print("interrupted; the same command, or `lmray sweep resume`, goes on from here")
        raise typer.Exit(130)
    if "failed" in states:
        raise typer.Exit(4)


@contextmanager
def _watching(space: "Space", directory: Path) -> Iterator[Callable[["Event"], None]]:
    """Shows events as they happen: a bar over trials on a terminal, lines in any case."""
    from lmray.cli.show import bars, err
    from lmray.experiments.ledger import CLOSED, read_events, standing

    total = len(space.runs())
    names: dict[str, str] = {}
    with bars("facts") as drawn:
        closed = sum(
            kind in CLOSED for kind in standing(read_events(directory / "ledger.jsonl")).values()
        )
        task = drawn.add_task("trials", total=total, completed=closed, facts=f"{closed}/{total}")

        def observe(event: "Event") -> None:
            nonlocal closed
            facts = event.facts
            if event.kind == "started":
                names[event.trial] = facts["name"]
            name = names.get(event.trial, event.trial)
            loss = facts.get("loss")
            shown = f"{loss:.4f}" if loss is not None else "not finite"
            if event.kind == "rung":
                err.print(f"{name}: {facts['rung']:,} tokens, loss {shown}, goes on")
            elif event.kind == "stopped":
                err.print(f"{name}: {facts['rung']:,} tokens, loss {shown}, stopped")
            elif event.kind == "done":
                err.print(f"{name}: done, loss {shown}")
            elif event.kind == "diverged":
                err.print(f"{name}: diverged at {facts['tokens']:,} tokens")
            elif event.kind == "failed":
                err.print(f"{name}: failed: {facts.get('error', 'see its run.json')}")
            if event.kind in CLOSED:
                closed += 1
                drawn.update(task, completed=closed, facts=f"{closed}/{total}")

        yield observe


def show_trials(sweep: "Sweep", *, as_json: bool) -> None:
    """Prints a sweep's table."""
    from lmray.cli.show import result, table
    from lmray.experiments.tables import cells, columns, readable

    header = columns(sweep.space)
    if as_json:
        rows = [dict(zip(header, cells(row), strict=True)) for row in sweep.rows]
        best = sweep.best.trial.changes if sweep.best else {}
        facts = {"sweep": str(sweep.directory), "best": best, "trials": rows}
        result(facts | {"report": str(sweep.directory / "report" / "report.md")}, "", as_json=True)
    else:
        table(header, [readable(row, sweep.best) for row in sweep.rows])
