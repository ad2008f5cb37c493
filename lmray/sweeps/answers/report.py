"""A sweep's report, beneath the sweep: report.md and report.html, pictures, the tables as csv.

The html is one file that needs no other: its pictures are in it.
"""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from lmray import remote
from lmray.accounting import num_parameters
from lmray.config import Budget
from lmray.runs.run_directory import RunDirectory
from lmray.storage import write_bytes
from lmray.sweeps.answers import (
    batches,
    bracket,
    edges,
    lineage,
    plots,
    plots_compare,
    plots_curves,
    plots_lines,
    plots_population,
    plots_sharpness,
)
from lmray.sweeps.answers.comparison import Table, costs, over_seeds, signed, switches
from lmray.sweeps.answers.equal import held_equal
from lmray.sweeps.answers.tables import (
    Summary,
    Sweep,
    as_csv,
    best_of,
    columns,
    readable,
    reference,
    summaries,
)
from lmray.sweeps.axes import shown, spoken
from lmray.sweeps.decisions.honesty import honesty
from lmray.sweeps.ledger import read_events
from lmray.sweeps.price import against_taken, read_price, taken
from lmray.sweeps.starts import starts


def write_report(sweep: Sweep, runs: Path) -> Path:
    """Writes the report of a sweep, finished or not, and returns the path of report.md."""
    folder = sweep.directory / "report"
    folder.mkdir(parents=True, exist_ok=True)
    along = _traced(sweep)
    pictures = _draw(sweep, along, runs, folder)
    write_bytes(folder / "trials.csv", as_csv(sweep).encode())
    facts = _facts(sweep, along, runs) | {"pictures": pictures}
    environment = _environment()
    for kind, table in (("md", markdown), ("html", _html)):
        environment.filters["table"] = table
        text = environment.get_template(f"report.{kind}.j2").render(facts)
        write_bytes(folder / f"report.{kind}", text.encode())
    remote.publish(folder)
    return folder / "report.md"


def _traced(sweep: Sweep) -> list[bracket.Traced]:
    return bracket.traced(sweep, read_events(sweep.directory / "ledger.jsonl"))


def _draw(sweep: Sweep, along: list[bracket.Traced], runs: Path, folder: Path) -> list[Path]:
    """The pictures that say something of this sweep, drawn; each as png and svg."""
    if lineage.generations(sweep):
        plots_population.population(sweep, folder / "population.png")
        return [folder / "population.png"]
    drawings: list[tuple[str, Callable[[Path], None]]] = []
    if sweep.space.baseline:
        drawings.append(("differences", lambda path: plots_compare.differences(sweep, path)))
    for key in plots.numeric_axes(sweep):
        name = f"loss-against-{key.rpartition('.')[2]}"
        own = along[0].fits if len(along) == 1 and key == bracket.searched(sweep) else []
        drawings.append((name, lambda path, key=key, o=own: plots.against(sweep, key, path, o)))
    if len(along) > 1:
        drawings.append(("lines", lambda path: plots_lines.along(sweep, along, path)))
    if sharp := plots_sharpness.measured(sweep, runs):
        drawings.append(("sharpness", lambda path: plots_sharpness.sharpness(sweep, sharp, path)))
    if len(sweep.space.seeds) > 1:
        drawings.append(("seeds", lambda path: plots_compare.seeds(sweep, path)))
    if "data.batch_size" in sweep.space.axes:
        drawings.append(("batch", lambda path: plots_compare.batches(sweep, runs, path)))
    drawings.append(("curves", lambda path: plots_curves.curves(sweep, path)))
    for name, draw in drawings:
        draw(folder / f"{name}.png")
    return [folder / f"{name}.png" for name, _ in drawings]


def _facts(sweep: Sweep, along: list[bracket.Traced], runs: Path) -> dict[str, Any]:
    space = sweep.space
    compared = len(space.seeds) > 1 or bool(space.baseline)
    directories = [RunDirectory(runs / row.trial.id) for row in sweep.rows]
    asked = read_price(sweep.directory)
    rungs = space.asha.rungs(space.base.budget.tokens)
    events = read_events(sweep.directory / "ledger.jsonl")
    sizes = batches.batch_sizes(sweep, runs) if batches.KEY in space.axes else []
    return {
        "sweep": sweep,
        "space": space,
        "model": space.base.model,
        "answer": _answer(sweep, along),
        "brackets": bracket.brackets(sweep, along),
        "optima": bracket.optima(along),
        "brackets_note": bracket.BRACKETS_NOTE,
        "optima_note": bracket.OPTIMA_NOTE,
        "edges": edges.edges(sweep, along),
        "edges_note": edges.NOTE,
        "generations": lineage.by_generation(sweep),
        "ancestors": lineage.ancestors(sweep),
        "lineage_note": lineage.NOTE,
        "trials": (columns(space), [readable(row, sweep.best) for row in sweep.rows]),
        "over_seeds": over_seeds(sweep.compared) if compared else ([], []),
        "switches": switches(sweep.compared) if space.baseline else ([], []),
        "costs": costs(sweep, runs),
        "batches": batches.table(sizes, sweep),
        "batches_equal": held_equal(sweep.rows),
        "batch_lines": batches.lines(sizes, sweep),
        "budget": _budget(space.base.budget),
        "refused": [(spoken(each.combination), each.reason) for each in space.refusals()],
        "price": against_taken(asked, taken(sweep, runs)) if asked else ([], []),
        "starts": begun.sentence() if (begun := starts(events, runs)) else "",
        "rungs": ", ".join(f"{rung:,}" for rung in rungs),
        "honesty": honesty(sweep, events).lines() if rungs else [],
        "parameters": num_parameters(space.base.model),
        "lives": [life for d in directories if d.status != "absent" for life in d.facts["lives"]],
    }


def _budget(budget: Budget) -> str:
    """The limits of a budget, the first of which to be reached ends a trial."""
    limits = {"steps": budget.steps, "FLOP": budget.flops, "seconds": budget.seconds}
    others = [f"{value:,g} {unit}" for unit, value in limits.items() if value != "none"]
    tokens = f"{budget.tokens:,} training tokens"
    return f"{tokens}, or {' or '.join(others)} if they end sooner" if others else tokens


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=lambda name: bool(name) and name.endswith(".html.j2"),
    )
    environment.filters["thousands"] = "{:,}".format
    environment.filters["embedded"] = _embedded
    return environment


def _embedded(picture: Path) -> str:
    """A png's svg twin as a data URI."""
    data = base64.b64encode(picture.with_suffix(".svg").read_bytes()).decode()
    return f"data:image/svg+xml;base64,{data}"


def answer(sweep: Sweep) -> str:
    """The result in a few sentences: the best values, how sure that is, whether at an edge."""
    return _answer(sweep, _traced(sweep))


def _answer(sweep: Sweep, along: list[bracket.Traced]) -> str:
    groups = summaries(sweep.compared)
    best = best_of(groups)
    if best is None:
        return "No trial is done, so there is no answer yet."
    values = {key: best.combination[key] for key in sweep.space.axes if key in best.combination}
    chosen = ", ".join(f"{key} = {shown(value)}" for key, value in values.items())
    bits = [row.measured["bits_per_byte"] for row in best.rows if row.status == "done"]
    loss = f"{best.loss.mean:.4f} nats/token, {sum(bits) / len(bits):.4f} bits/byte"
    text = f"Best: {chosen} with a validation loss of {loss}."
    if best.loss.n > 1:
        text = text[:-1] + f" (mean of {best.loss.n} seeds, ± {best.loss.margin:.4f} at 95 %)."
    elif "loss_low" in (own := next(r for r in best.rows if r.status == "done").measured):
        text += (
            f" Over other documents of the kind its loss would be {own['loss_low']:.4f} to "
            f"{own['loss_high']:.4f} (95 % bootstrap interval; other seeds are not in it)."
        )
    course = lineage.sentence(sweep)
    for key, values in ({} if course else plots.numeric_axes(sweep)).items():
        value = dict(zip(sweep.space.axes, best.values, strict=True))[key]
        if len(values) > 2 and value in (min(values), max(values)):
            text += f" {key} is at the edge of the values tried, so try further out."
        elif len(values) > 2:
            text += f" {key} is in the interior of the values tried."
    text += course + edges.edge_sentence(sweep, along) + bracket.fitted_sentence(sweep, along)
    return text + _certainty(sweep, groups, best)


def _certainty(sweep: Sweep, groups: list[Summary], best: Summary) -> str:
    """How far the best is from the baseline, or from the second."""
    if len(sweep.space.seeds) == 1:
        return " One seed: differences of a few hundredths may be noise."
    base = reference(sweep, groups)
    if base is None:
        return ""
    if base is best:
        base = best_of([group for group in groups if group is not best])
    difference = best.over(base) if base is not None else None
    if base is None or difference is None or difference.n < 2:
        return ""
    sure = difference.mean + difference.margin < 0
    verdict = "outside" if sure else "within"
    return f" Against {base.name}: {signed(difference)}, {verdict} the noise of the seeds."


def markdown(table: Table) -> str:
    """A table in Markdown."""
    header, rows = table
    lines = ["| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows]]
    return "\n".join(lines)


def _html(table: Table) -> Any:
    from markupsafe import Markup, escape

    def line(tag: str, cells: list[str]) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    header, rows = table
    return Markup("<table>{}</table>").format(
        Markup("\n".join([line("th", header), *(line("td", row) for row in rows)]))
    )
