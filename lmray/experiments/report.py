"""A sweep's report, beneath the sweep: report.md with its table and pictures, the table as csv."""

from pathlib import Path

import jinja2

from lmray.accounting import num_parameters
from lmray.experiments import plots
from lmray.experiments.honesty import honesty
from lmray.experiments.ledger import read_events
from lmray.experiments.run_directory import RunDirectory
from lmray.experiments.tables import Sweep, as_csv, columns, readable, summaries
from lmray.storage import write_bytes


def write_report(sweep: Sweep, runs: Path) -> Path:
    """Writes the report of a sweep, finished or not, and returns the path of report.md."""
    folder = sweep.directory / "report"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for key in plots.numeric_axes(sweep):
        pictures.append(folder / f"loss-against-{key.rpartition('.')[2]}.png")
        plots.against(sweep, key, pictures[-1])
    pictures.append(folder / "curves.png")
    plots.curves(sweep, pictures[-1])
    write_bytes(folder / "trials.csv", as_csv(sweep).encode())
    space = sweep.space
    directories = [RunDirectory(runs / row.trial.id) for row in sweep.rows]
    facts = {
        "sweep": sweep,
        "space": space,
        "model": space.base.model,
        "answer": answer(sweep),
        "table": markdown(columns(space), [readable(row, sweep.best) for row in sweep.rows]),
        "summary": _summary(sweep) if len(space.seeds) > 1 else "",
        "honesty": honesty(sweep, read_events(sweep.directory / "ledger.jsonl")).lines(),
        "pictures": pictures,
        "rungs": ", ".join(f"{r:,}" for r in space.asha.rungs(space.base.budget.tokens)) or "no",
        "parameters": num_parameters(space.base.model),
        "lives": [life for d in directories if d.status != "absent" for life in d.facts["lives"]],
    }
    write_bytes(folder / "report.md", _template().render(facts).encode())
    return folder / "report.md"


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["thousands"] = "{:,}".format
    return environment.get_template("report.md.j2")


def answer(sweep: Sweep) -> str:
    """The result in a sentence or two: the best values, and whether they lie at an edge."""
    best = sweep.best
    if best is None:
        return "No trial is done, so there is no answer yet."
    shown = ", ".join(f"{key} = {best.trial.changes[key]}" for key in sweep.space.axes)
    loss = f"{best.loss:.4f} nats/token, {best.measured['bits_per_byte']:.4f} bits/byte"
    text = f"**Best: {shown}** with a validation loss of {loss}."
    if "loss_low" in best.measured:
        low, high = best.measured["loss_low"], best.measured["loss_high"]
        text += (
            f" Over other documents of the kind its loss would be {low:.4f} to {high:.4f} "
            f"(95 % bootstrap interval; other seeds are not in it)."
        )
    for key in plots.numeric_axes(sweep):
        values, value = sorted(sweep.space.axes[key]), best.trial.changes[key]
        if len(values) > 2 and value in (values[0], values[-1]):
            text += f" {key} is at the edge of the values tried, so try further out."
        elif len(values) > 2:
            text += f" {key} is in the interior of the values tried."
    if len(sweep.space.seeds) == 1:
        text += " One seed: differences of a few hundredths may be noise."
    return text


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows]]
    return "\n".join(lines)


def _summary(sweep: Sweep) -> str:
    varied = [key.rpartition(".")[2] for key in sweep.space.axes]
    rows = [
        [
            *map(str, group.values),
            f"{group.mean:.4f}" if group.losses else "-",
            f"{group.spread:.4f}" if len(group.losses) > 1 else "-",
            f"{len(group.losses)} of {group.trials}",
        ]
        for group in summaries(sweep)
    ]
    return markdown([*varied, "mean loss", "standard deviation", "done"], rows)
