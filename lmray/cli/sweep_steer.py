"""`lmray sweep stop|add`: what another terminal asks of a sweep, perhaps while it runs."""

from typing import Annotated

import typer

from lmray.cli.options import DEFAULT_ROOT, Root, SweepDirectory, locate


def stop(directory: SweepDirectory, root: Root = DEFAULT_ROOT) -> None:
    """Ask a running sweep to end for now: its trials write checkpoints, `resume` goes on."""
    from lmray.cli.show import err
    from lmray.errors import PreflightError
    from lmray.storage import locked
    from lmray.sweeps.sweep_directory import StopFile, read_space

    found = locate(directory, root, "sweeps")
    read_space(found)
    busy = f"{found} is being run"
    try:
        with locked(found, busy):
            pass
    except PreflightError:
        StopFile.of(found).ask()
        err.print("asked: trials write checkpoints and end; `lmray sweep resume` goes on from them")
        return
    raise PreflightError(f"nobody on this machine runs {found}; there is nothing to stop")


def add(
    directory: SweepDirectory,
    values: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="Values of the sweep's axes.")
    ],
    root: Root = DEFAULT_ROOT,
) -> None:
    """Add a combination, with every seed, to what a sweep tries; `resume` runs it.

    A sweep under way takes it up before it ends. What has been decided stays.
    """
    from lmray.cli.show import err
    from lmray.config import parse_assignments
    from lmray.sweeps import sweep_directory
    from lmray.sweeps.axes import spoken

    found, asked = locate(directory, root, "sweeps"), parse_assignments(values)
    while True:
        space, _ = sweep_directory.read_space(found)
        combination = sweep_directory.addition(space, asked)
        if sweep_directory.add(found, combination, by="user", after=len(space.added)):
            break
    err.print(
        f"added {spoken(combination)} with seeds {', '.join(map(str, space.seeds))}", markup=False
    )
