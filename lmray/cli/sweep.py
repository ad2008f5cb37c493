"""`lmray sweep`: run the trials of a space under ASHA, look at them, report them."""

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmray.cli.options import (
    DEFAULT_ROOT,
    Address,
    Json,
    Overrides,
    Root,
    SweepDirectory,
    changes_of,
    locate_sweep,
    place_data,
)
from lmray.cli.sweep_audit import audit
from lmray.cli.sweep_price import Agreement, agree, checked_data, priced
from lmray.cli.sweep_steer import add, stop

if TYPE_CHECKING:
    from lmray.sweeps.answers.tables import Sweep
    from lmray.sweeps.decisions.referee import Retry
    from lmray.sweeps.space import Space

app = typer.Typer(help="Ask a question with many runs; read the answer.", no_args_is_help=True)


class _Losers(enum.StrEnum):
    SPACE = "space"
    ALL = "all"
    BEST = "best"
    NOTHING = "nothing"


class _Retry(enum.StrEnum):
    FAILED = "failed"
    DIVERGED = "diverged"
    ALL = "all"
    NONE = "none"


SpaceFile = Annotated[
    str, typer.Argument(metavar="SPACE", help="A Python file, or the name of a space lmray ships.")
]
MemoryGB = Annotated[
    float,
    typer.Option(
        min=0, help="Refuse what takes more GB of a device by accounting; 0: the space's."
    ),
]
Losers = Annotated[
    _Losers,
    typer.Option(
        help="What stopped and diverged trials keep of their checkpoints: the best one's weights, "
        "nothing, all, or what the space says (default: best)."
    ),
]
TokensPerS = Annotated[
    float, typer.Option(min=0, help="Speed of one trial, for the price; 0 times a few steps here.")
]


@app.command()
def run(
    space: SpaceFile,
    changes: Overrides = None,
    name: Annotated[
        str, typer.Option(help="Kept in ROOT/sweeps/NAME; default: the space's name.")
    ] = "",
    max_hours: Annotated[
        float, typer.Option(min=0, help="Refuse a sweep that may take longer.")
    ] = 24.0,
    yes: Annotated[
        bool, typer.Option("--yes", help="Start whatever the price in hours and disk.")
    ] = False,
    tokens_per_s: TokensPerS = 0.0,
    memory_gb: MemoryGB = 0.0,
    losers: Losers = _Losers.SPACE,
    address: Address = "",
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Run a space's trials; the same command again finishes a sweep that was interrupted.

    Changes are of the base, or of the rungs, as in asha.mode=promote.
    Its price is told first: trials, tokens, FLOPs, hours, memory and disk without early stopping.
    """
    asked = _loaded(space, changes or [], memory_gb, root, losers)
    directory = locate_sweep(str(root / "sweeps" / (name or asked.name)), root)
    agree(asked, directory, Agreement(max_hours, yes, tokens_per_s))
    _run_and_show(asked, directory, root / "runs", address, as_json=json)


@app.command()
def price(
    space: SpaceFile,
    changes: Overrides = None,
    tokens_per_s: TokensPerS = 0.0,
    memory_gb: MemoryGB = 0.0,
    losers: Losers = _Losers.SPACE,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Say what a space's sweep would take without early stopping, and start nothing."""
    from dataclasses import asdict

    from lmray.cli.show import result
    from lmray.sweeps.axes import spoken

    asked = _loaded(space, changes or [], memory_gb, root, losers)
    found = priced(asked, checked_data(asked), tokens_per_s)
    refused = asked.refusals()
    reasons = [f"not tried: {spoken(each.combination)}: {each.reason}" for each in refused]
    lines = [found.sentence(), *reasons]
    facts = asdict(found) | {"refused": [asdict(each) for each in refused]}
    result(facts, "\n".join(lines), as_json=json)


def _loaded(
    source: str, changes: list[str], memory_gb: float, root: Path, losers: _Losers
) -> "Space":
    """The space of a file or a name, with what the command line says of it."""
    from dataclasses import replace

    import lmray.distributed  # noqa: F401 - sets Ray's environment before a space imports Ray
    from lmray.sweeps.space_file import load_space

    asked = load_space(source).with_overrides(changes_of(changes, root))
    said: dict[str, Any] = {"base": place_data(asked.base, root)}
    if memory_gb:
        said["memory_gb"] = memory_gb
    if losers != _Losers.SPACE:
        said["losers"] = losers.value
    return replace(asked, **said)


@app.command()
def resume(
    directory: SweepDirectory,
    retry: Annotated[_Retry, typer.Option(help="Closed trials to run again.")] = _Retry.FAILED,
    address: Address = "",
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Finish an interrupted sweep from its sweep.json and ledger."""
    from lmray.sweeps.sweep_directory import read_space

    found = locate_sweep(directory, root)
    space, _ = read_space(found)
    _run_and_show(space, found, root / "runs", address, as_json=json, retry=retry.value)


app.command()(audit)


@app.command()
def status(directory: SweepDirectory, root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Say how each trial of a sweep stands, also while it runs."""
    from lmray.cli.show import out, result
    from lmray.cli.sweep_live import standings_table, tally
    from lmray.sweeps.standing import standings
    from lmray.sweeps.sweep_directory import read_space

    found_at = locate_sweep(directory, root)
    found = standings(found_at, root / "runs")
    if json:
        trials = [
            {**vars(each), "trial": each.trial.changes, "run": each.trial.id} for each in found
        ]
        result({"sweep": str(found_at), "trials": trials}, "", as_json=True)
        return
    space, _ = read_space(found_at)
    out.print(standings_table(space, found, most=len(found)))
    out.print(tally(found))


app.command()(stop)
app.command()(add)


@app.command()
def report(directory: SweepDirectory, root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Write a sweep's report again from its ledger: report.md, report.html, pictures, csv."""
    from lmray.cli.show import result
    from lmray.sweeps.answers.report import write_report
    from lmray.sweeps.answers.tables import read_sweep

    path = write_report(read_sweep(locate_sweep(directory, root), root / "runs"), root / "runs")
    result({"report": str(path)}, str(path), as_json=json)


def carry_out(
    space: "Space", directory: Path, runs: Path, address: str, retry: "Retry" = "failed"
) -> "tuple[Sweep, Path]":
    """Runs what is left of a sweep and writes its report; returns both, the latter's path."""
    from dataclasses import replace

    from lmray.cli.sweep_live import watching
    from lmray.storage import locked
    from lmray.sweeps.answers.report import write_report
    from lmray.sweeps.answers.tables import read_sweep
    from lmray.sweeps.ledger import read_events, standing
    from lmray.sweeps.losers import losers, trim
    from lmray.sweeps.sweep_directory import additions, claim, is_closed

    splits = checked_data(space)
    claim(directory, space, splits.digest)
    grown = replace(space, added=additions(directory))
    if retry in ("diverged", "all") or not is_closed(directory, grown, splits.digest):
        from lmray.distributed.cluster import ray_session
        from lmray.distributed.tune import run_sweep

        # The dashboard is what frees the workers of a stopped trial that has several (ray 2.60).
        several = space.base.execution.workers > 1
        busy = f"another process is running {directory}; wait for it or stop it"
        with (
            locked(directory, busy),
            ray_session(address, dashboard=several, shared=directory.parent) as joined,
            watching(directory, runs) as observe,
        ):
            run_sweep(grown, splits, directory, runs, retry=retry, observe=observe, named=joined)
    else:
        # What a kill after the last trial may have left.
        stands = standing(read_events(directory / "ledger.jsonl"))
        trim(runs, losers(stands, failed=retry == "none"), space.losers)
    sweep = read_sweep(directory, runs)
    return sweep, write_report(sweep, runs)


def _run_and_show(
    space: "Space",
    directory: Path,
    runs: Path,
    address: str,
    *,
    as_json: bool,
    retry: "Retry" = "failed",
) -> None:
    from lmray.cli.show import result
    from lmray.sweeps.answers.report import answer

    sweep, path = carry_out(space, directory, runs, address, retry)
    show_trials(sweep, as_json=as_json, runs=runs)
    if not as_json:
        result(None, f"{answer(sweep)}\nreport: {path}", as_json=False)
    leave(sweep)


def leave(sweep: "Sweep") -> None:
    """Exits with 130 if the sweep was interrupted and 4 if a trial failed."""
    from lmray.cli.show import err

    states = {row.status for row in sweep.rows}
    if states & {"running", "paused", "waiting"}:
        err.print("interrupted; the same command, or `lmray sweep resume`, goes on from here")
        raise typer.Exit(130)
    if "failed" in states:
        raise typer.Exit(4)


def show_trials(sweep: "Sweep", *, as_json: bool, runs: Path) -> None:
    """Prints a sweep's table; for a machine with its price and what it took."""
    from dataclasses import asdict

    from lmray.cli.show import result, table
    from lmray.sweeps.answers.tables import cells, columns, readable
    from lmray.sweeps.price import read_price, taken

    header = columns(sweep.space)
    if as_json:
        rows = [dict(zip(header, cells(row), strict=True)) for row in sweep.rows]
        asked = read_price(sweep.directory)
        facts = {
            "sweep": str(sweep.directory),
            "best": sweep.best.trial.changes if sweep.best else {},
            "trials": rows,
            "price": asdict(asked) if asked else {},
            "took": taken(sweep, runs),
            "report": str(sweep.directory / "report" / "report.md"),
        }
        result(facts, "", as_json=True)
    else:
        table(header, [readable(row, sweep.best) for row in sweep.rows])
