"""`lmray sharpness`: the Hessian's largest eigenvalue at the checkpoints of a run."""

from typing import Annotated, Any

import typer

from lmray.cli.options import DEFAULT_ROOT, Json, Root, find_run


def sharpness(
    run: Annotated[str, typer.Argument(help="A run: its directory or the beginning of its id.")],
    sequences: Annotated[
        int, typer.Option(min=1, help="Training sequences whose mean loss it is of.")
    ] = 16,
    products: Annotated[
        int,
        typer.Option(min=1, help="Products with the Hessian at most; each is two gradients."),
    ] = 30,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Measure how sharp the loss is at each checkpoint, beside what the learning rate can bear.

    The largest eigenvalue of the Hessian, and for AdamW of what its preconditioner makes of it,
    which counts against the limit, go into sharpness.jsonl in the run's directory; the report of
    a sweep draws them. What is there is not measured again. execution.keep_checkpoints says how
    many checkpoints a run keeps.
    """
    from lmray.cli.show import progress, result, table
    from lmray.runs.sharpness import FILE, sharpness_along

    directory = find_run(run, root)
    with progress() as show:
        found = sharpness_along(directory, sequences=sequences, products=products, progress=show)
    path = directory.path / FILE
    result({"run": str(directory.path), "records": found}, str(path), as_json=json)
    if not json:
        header = ["step", "tokens", "lr", "sharpness", "preconditioned", "limit", "over limit"]
        table(header, [_row(record) for record in found])


def _row(record: dict[str, Any]) -> list[str]:
    from lmray.runs.sharpness import over_limit

    measured = [
        f"{record[key]:.4g} ± {record[key + '_residual']:.1g}" if key in record else "-"
        for key in ("sharpness", "preconditioned")
    ]
    share = over_limit(record)
    return [
        f"{record['step']:,}",
        f"{record['tokens']:,}",
        f"{record['lr']:.4g}",
        *measured,
        f"{record['limit']:.4g}" if "limit" in record else "-",
        "-" if share is None else f"{share:.3f}",
    ]
