"""`lmray sweep audit`: what did early stopping miss?"""

from typing import Annotated

import typer

from lmray.cli.options import (
    DEFAULT_ROOT,
    Address,
    AtOnce,
    Json,
    Root,
    SweepDirectory,
    locate_sweep,
)


def audit(
    directory: SweepDirectory,
    count: Annotated[
        int, typer.Option("-k", "--count", min=1, help="How many stopped trials to train.")
    ] = 3,
    seed: Annotated[int, typer.Option(help="Draws those that are not the nearest.")] = 0,
    at_once: AtOnce = 0,
    address: Address = "",
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Train stopped trials to their end: would one of them have won?

    Half of them are those that were least behind the winner when they were stopped, the rest are
    drawn by lot. One of which the sweep kept no whole checkpoint (LOSERS) begins anew. No decision
    of the sweep changes. The same command goes on where it was cut off.
    """
    from lmray.cli.show import err, result
    from lmray.cli.sweep_live import watching
    from lmray.dataset import open_splits
    from lmray.distributed.cluster import ray_session
    from lmray.distributed.tune import run_audit
    from lmray.errors import PreflightError
    from lmray.runs.run_directory import RunDirectory
    from lmray.storage import locked
    from lmray.sweeps.answers.report import write_report
    from lmray.sweeps.answers.tables import read_sweep
    from lmray.sweeps.decisions.honesty import honesty, suspects
    from lmray.sweeps.ledger import read_events
    from lmray.sweeps.losers import begins_anew
    from lmray.sweeps.sweep_directory import claim, read_space

    found, runs = locate_sweep(directory, root), root / "runs"
    space, _ = read_space(found)
    splits = open_splits(space.base.data.tokens)
    claim(found, space, splits.digest)
    ledger = found / "ledger.jsonl"
    rows = suspects(read_sweep(found, runs), read_events(ledger), count, seed=seed)
    if not rows:
        raise PreflightError(
            f"{found} has no stopped trial to audit, or no trial is done yet to set it against; "
            f"finish the sweep, or lower what goes on at its rungs"
        )
    busy = f"another process is running {found}; wait for it or stop it"
    chosen = [row.trial.id for row in rows]
    anew = [row.trial.name for row in rows if begins_anew(RunDirectory(runs / row.trial.id))]
    if anew:
        err.print(
            f"{len(anew)} of {len(rows)} begin anew, for the sweep kept weights alone or nothing "
            f"of them (LOSERS={space.losers}): {'; '.join(anew)}",
            markup=False,
        )
    several = space.base.execution.workers > 1
    with (
        locked(found, busy),
        ray_session(address, dashboard=several, shared=found.parent) as joined,
        watching(found, runs, chosen) as observe,
    ):
        run_audit(space, splits, found, runs, chosen, observe=observe, named=joined, stated=at_once)
    sweep = read_sweep(found, runs)
    events = read_events(ledger)
    told = honesty(sweep, events).lines()
    path = write_report(sweep, runs)
    result({"report": str(path), "honesty": told}, "\n".join(told), as_json=json)
    if not set(chosen) <= {event.trial for event in events if event.kind == "audited"}:
        err.print("interrupted; the same command goes on from here")
        raise typer.Exit(130)
