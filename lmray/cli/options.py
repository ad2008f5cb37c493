"""Arguments that several verbs take, and how they are looked up."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmray import remote
from lmray.errors import UsageError

if TYPE_CHECKING:
    from lmray.config import Run
    from lmray.runs.run_directory import RunDirectory

Root = Annotated[
    Path,
    typer.Option(
        envvar="LMRAY_ROOT",
        callback=remote.cached,
        help="Folder of corpora, tokenizers, tokens, runs and sweeps, or its URL (s3://, gs://).",
    ),
]
DEFAULT_ROOT = Path("lmray-out")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

SweepDirectory = Annotated[str, typer.Argument(help="A sweep: its directory or its name.")]

Workers = Annotated[
    int, typer.Option(min=1, help="Processes; 1 stays in this one, more go through Ray Data.")
]

Address = Annotated[
    str,
    typer.Option(envvar="RAY_ADDRESS", help="Ray cluster to join; without one, Ray starts here."),
]

AtOnce = Annotated[
    int,
    typer.Option(
        min=0,
        help="Trials that may run at a time, on a cluster that grows also before it has the nodes: "
        "those that wait make them come; 0: as many as there is room for.",
    ),
]

Dashboard = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS", help="The dashboard's, as in http://127.0.0.1:8265."
    ),
]

Checkpoint = Annotated[
    str, typer.Option(help="latest, best (if the run has execution.keep_best=true), or a step.")
]

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Changes, as in optim.lr=1e-3.", show_default=False
    ),
]


def locate(path: str, root: Path, kind: str) -> Path:
    """A directory by its path, by its name beneath root/<kind>, or relative to the root."""
    candidates = (remote.cached(path), root / kind / path, root / path)
    for candidate in candidates:
        if candidate.is_dir() or remote.exists(candidate):
            if kind != "tokens":  # whoever opens those fetches and verifies them
                remote.refresh(candidate)
            return candidate
    return candidates[0]


def locate_sweep(given: str, root: Path) -> Path:
    """A sweep's directory, as `locate`; of one at a URL, with what its runs have recorded."""
    from lmray.sweeps.sweep_directory import fetch

    found = locate(given, root, "sweeps")
    fetch(found, root / "runs")
    return found


def find_run(given: str, root: Path) -> "RunDirectory":
    """The run a path, a run id or the beginning of one names.

    Raises UsageError if it names none or several.
    """
    from lmray.runs.run_directory import RunDirectory

    for path in (remote.cached(given), root / "runs" / given):
        remote.refresh(path)
        if (path / "run.json").exists():
            return RunDirectory(path)
    begun = [name for name in remote.names(root / "runs") if name.startswith(given)]
    if len(begun) == 1:
        return find_run(begun[0], root)
    found = sorted(root.glob(f"runs/{given}*/run.json"))
    if len(found) == 1:
        return RunDirectory(found[0].parent)
    what = "several runs begin" if found else "no run begins"
    raise UsageError(
        f"{what} with {given!r} beneath {root / 'runs'}; give a run's directory or more of its id"
    )


def changes_of(texts: list[str], root: Path) -> dict[str, Any]:
    """What assignments change; the run that begins_from names is looked up, as `find_run`."""
    from lmray.config import parse_assignments

    changes = parse_assignments(texts)
    if (parent := changes.get("begins_from", "none")) != "none":
        changes["begins_from"] = find_run(parent, root).path.name
    return changes


def place_data(run: "Run", root: Path) -> "Run":
    """The run with data.tokens looked up: as given, or beneath the root."""
    from lmray.config import override

    return override(run, {"data.tokens": str(locate(run.data.tokens, root, "tokens"))})
