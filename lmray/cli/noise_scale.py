"""`lmray noise-scale`: which batch size do a run's gradients call for?"""

from typing import Annotated, Any

import typer

from lmray.cli.options import DEFAULT_ROOT, Json, Root, find_run


def measure(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs: directories or beginnings of ids."),
    ],
    batches: Annotated[
        int,
        typer.Option(
            min=4, help="Random batches compared; the gradients of all are in memory, twice."
        ),
    ] = 16,
    sequences: Annotated[
        int, typer.Option(min=1, help="Sequences in each; fewer if memory does not suffice.")
    ] = 16,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Measure the gradient noise scale of runs at each of their checkpoints.

    It predicts the critical batch size, beyond which more sequences a step add little (McCandlish
    et al. 2018). It is left in noise_scale.json in the run's directory, where the report of a sweep
    over batch sizes finds it.
    """
    from lmray.cli.show import out, progress, result, table
    from lmray.runs.noise import measure_noise

    measured = []
    for directory in [find_run(run, root) for run in runs]:
        with progress() as show:
            measured.append(
                measure_noise(directory, batches=batches, sequences=sequences, progress=show)
            )
    if json:
        result({"runs": measured}, "", as_json=True)
        return
    for facts in measured:
        out.print(f"run {facts['run']}: {batches} batches of {sequences} sequences", markup=False)
        table(
            ["step", "tokens", "noise scale (sequences)", "from", "to", "in tokens"],
            [_cells(row) for row in facts["checkpoints"]],
        )


def _cells(row: dict[str, Any]) -> list[str]:
    keys = ("noise_scale_sequences", "low", "high", "noise_scale_tokens")
    numbers = ["-" if row[key] is None else f"{row[key]:,.4g}" for key in keys]
    return [f"{row['step']:,}", f"{row['tokens']:,}", *numbers]
