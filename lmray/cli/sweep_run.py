"""Running what is left of a sweep, and showing what has come of it."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lmray.cli.sweep_price import checked_data

if TYPE_CHECKING:
    from lmray.sweeps.answers.tables import Sweep
    from lmray.sweeps.decisions.referee import Retry
    from lmray.sweeps.disk_limit import DiskLimit
    from lmray.sweeps.space import Space


def carry_out(
    space: "Space",
    directory: Path,
    runs: Path,
    address: str,
    limit: "DiskLimit",
    retry: "Retry" = "failed",
    at_once: int = 0,
) -> "tuple[Sweep, Path]":
    """Runs what is left of a sweep and writes its report; returns both, the latter's path.

    `at_once` trials at a time, 0 for as many as there is room for.

    Raises LimitError if it is beyond the limit as it stands.
    """
    from dataclasses import replace

    from lmray.cli.sweep_live import watching
    from lmray.storage import locked
    from lmray.sweeps.answers.report import write_report
    from lmray.sweeps.answers.tables import read_sweep
    from lmray.sweeps.ledger import read_events
    from lmray.sweeps.losers import close, losers, trim
    from lmray.sweeps.sweep_directory import additions, claim, is_closed

    splits = checked_data(space)
    claim(directory, space, splits.digest)
    grown = replace(space, added=additions(directory))

    def free() -> None:
        """What a kill, or another wish, has left of the losers."""
        events = read_events(directory / "ledger.jsonl")
        trim(runs, losers(runs, events, failed=retry == "none"), space.losers)

    if retry in ("diverged", "all") or not is_closed(directory, grown, splits.digest):
        from lmray.distributed.cluster import ray_session
        from lmray.distributed.tune import run_sweep

        # The dashboard is what frees the workers of a stopped trial that has several (ray 2.60).
        several = space.base.execution.workers > 1
        with locked(directory, f"another process is running {directory}; wait for it or stop it"):
            free()
            limit.require()
            with (
                ray_session(address, dashboard=several, shared=directory.parent) as joined,
                watching(directory, runs) as observe,
            ):
                run_sweep(
                    grown,
                    splits,
                    directory,
                    runs,
                    retry=retry,
                    observe=observe,
                    limit=limit,
                    named=joined,
                    stated=at_once,
                )
    else:
        close(runs, read_events(directory / "ledger.jsonl"))
        free()
    sweep = read_sweep(directory, runs)
    return sweep, write_report(sweep, runs)


def run_and_show(
    space: "Space",
    directory: Path,
    runs: Path,
    address: str,
    limit: "DiskLimit",
    *,
    as_json: bool,
    retry: "Retry" = "failed",
    at_once: int = 0,
) -> None:
    """Runs what is left of a sweep, prints its table and answer, and leaves as `leave`."""
    from lmray.cli.show import result
    from lmray.sweeps.answers.report import answer

    sweep, path = carry_out(space, directory, runs, address, limit, retry, at_once)
    show_trials(sweep, as_json=as_json, runs=runs)
    if not as_json:
        result(None, f"{answer(sweep)}\nreport: {path}", as_json=False)
    leave(sweep, limit)


def leave(sweep: "Sweep", limit: "DiskLimit") -> None:
    """Exits with 130 if the sweep was interrupted, 3 if by its limit, and 4 if a trial failed."""
    from lmray.cli.show import err

    states = {row.status for row in sweep.rows}
    if states & {"running", "paused", "waiting"}:
        limit.require()
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
