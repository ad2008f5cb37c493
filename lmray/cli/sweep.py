"""`lmray sweep`: run the trials of a space under ASHA, look at them, report them."""

import enum
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmray.cli.options import (
    DEFAULT_ROOT,
    Address,
    AtOnce,
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
from lmray.cli.sweep_run import run_and_show
from lmray.cli.sweep_steer import add, stop

if TYPE_CHECKING:
    from lmray.sweeps.disk_limit import DiskLimit
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
        min=0,
        help="Refuse what takes more than execution.gpu_share of so many GB of a device, by "
        "accounting; 0: the space's.",
    ),
]
Losers = Annotated[
    _Losers,
    typer.Option(
        help="What stopped and diverged trials keep of their checkpoints: the best one's weights, "
        "nothing, all, or what the space says (default: best)."
    ),
]
MaxDisk = Annotated[
    float,
    typer.Option(
        min=0,
        help="GB that the sweep's runs may take: a price beyond it is refused, and a sweep that "
        "passes it ends early, to be resumed; 0: no limit.",
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
    max_disk: MaxDisk = 0.0,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes",
            help="Start whatever the price in hours, disk, GPU memory; --max-disk may end it.",
        ),
    ] = False,
    tokens_per_s: TokensPerS = 0.0,
    memory_gb: MemoryGB = 0.0,
    losers: Losers = _Losers.SPACE,
    at_once: AtOnce = 0,
    address: Address = "",
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Run a space's trials; the same command again finishes a sweep that was interrupted.

    Changes are of the base, or of the rungs, as in asha.mode=promote;
    execution.gpu_share=0.5 has two trials on a GPU.

    Its price is told first: trials, tokens, FLOPs, hours, memory and disk
    without early stopping.
    """
    asked = _loaded(space, changes or [], memory_gb, root, losers)
    directory = locate_sweep(str(root / "sweeps" / (name or asked.name)), root)
    limit = _disk_limit(directory, root / "runs", max_disk)
    said = Agreement(max_hours, yes, tokens_per_s, max_disk or math.inf, at_once)
    agree(asked, directory, said)
    run_and_show(asked, directory, root / "runs", address, limit, as_json=json, at_once=at_once)


@app.command()
def price(
    space: SpaceFile,
    changes: Overrides = None,
    tokens_per_s: TokensPerS = 0.0,
    memory_gb: MemoryGB = 0.0,
    losers: Losers = _Losers.SPACE,
    at_once: AtOnce = 0,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Say what a space's sweep would take without early stopping, and start nothing."""
    from dataclasses import asdict

    from lmray.cli.show import result
    from lmray.sweeps.axes import spoken

    asked = _loaded(space, changes or [], memory_gb, root, losers)
    found = priced(asked, checked_data(asked), tokens_per_s, at_once)
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

    said: dict[str, Any] = {}
    if memory_gb:
        said["MEMORY_GB"] = memory_gb
    if losers != _Losers.SPACE:
        said["LOSERS"] = losers.value
    asked = load_space(source, changes_of(changes, root), said)
    return replace(asked, base=place_data(asked.base, root))


@app.command()
def resume(
    directory: SweepDirectory,
    retry: Annotated[_Retry, typer.Option(help="Closed trials to run again.")] = _Retry.FAILED,
    max_disk: MaxDisk = 0.0,
    at_once: AtOnce = 0,
    address: Address = "",
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Finish an interrupted sweep from its sweep.json and ledger."""
    from lmray.sweeps.sweep_directory import read_space

    found = locate_sweep(directory, root)
    space, _ = read_space(found)
    limit = _disk_limit(found, root / "runs", max_disk)
    run_and_show(
        *(space, found, root / "runs", address, limit),
        as_json=json,
        retry=retry.value,
        at_once=at_once,
    )


def _disk_limit(directory: Path, runs: Path, max_disk: float) -> "DiskLimit":
    from lmray.sweeps.disk_limit import DiskLimit

    return DiskLimit(directory, runs, max_disk or math.inf)


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
