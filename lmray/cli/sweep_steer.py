"""`lmray sweep stop|add`: what another terminal asks of a sweep, perhaps while it runs."""

from typing import Annotated

import typer

from lmray.cli.options import DEFAULT_ROOT, Root, SweepDirectory, locate_sweep


def stop(directory: SweepDirectory, root: Root = DEFAULT_ROOT) -> None:
    """Ask a running sweep to end for now: its trials write checkpoints, `resume` goes on.

    One whose trials are all closed is being audited: then the same `audit` goes on.
    """
    from lmray import remote
    from lmray.cli.show import err
    from lmray.errors import PreflightError
    from lmray.storage import is_locked
    from lmray.sweeps.sweep_directory import StopFile, is_closed, read_space

    found = locate_sweep(directory, root)
    space, digest = read_space(found)
    if not remote.url(found) and not is_locked(found):
        raise PreflightError(f"nobody on this machine runs {found}; there is nothing to stop")
    StopFile.of(found).ask()
    again = "audit` with the same options" if is_closed(found, space, digest) else "resume`"
    err.print(f"asked: trials write checkpoints and end; `lmray sweep {again} goes on from them")


def add(
    directory: SweepDirectory,
    values: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="Values of the sweep's axes.")
    ],
    root: Root = DEFAULT_ROOT,
) -> None:
    """Add a combination, with every seed, to what a sweep tries; `resume` runs it.

    A sweep under way takes it up before it ends. What has been decided stays. One at a URL takes it
    up if this is the machine that runs it; until it is finished others may not add.
    """
    from lmray import remote
    from lmray.cli.show import err
    from lmray.config import parse_assignments
    from lmray.dataset import open_splits
    from lmray.errors import PreflightError
    from lmray.storage import is_locked
    from lmray.sweeps import sweep_directory
    from lmray.sweeps.axes import spoken
    from lmray.training.loop import check_data

    found, asked = locate_sweep(directory, root), parse_assignments(values)
    while True:
        space, digest = sweep_directory.read_space(found)
        here = not remote.url(found) or is_locked(found)
        if not (here or sweep_directory.is_closed(found, space, digest)):
            # Whoever runs it would not look, and write over it.
            raise PreflightError(
                f"{remote.url(found)} is not finished and nobody on this machine runs it; add on "
                f"the machine that does, or once it is finished"
            )
        combination = sweep_directory.addition(space, asked)
        check_data(space.run_of(combination), open_splits(space.base.data.tokens))
        if sweep_directory.add(found, combination, by="user", after=len(space.added)):
            break
    err.print(
        f"added {spoken(combination)} with seeds {', '.join(map(str, space.seeds))}", markup=False
    )
