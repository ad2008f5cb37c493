"""A sweep's report: report.md with its table and pictures, and the table as csv, beneath the sweep."""

from pathlib import Path

import jinja2

from lmray.experiments import plots
from lmray.experiments.run_directory import RunDirectory
from lmray.experiments.tables import Sweep, as_csv, columns, readable, summaries
from lmray.model.accounting import num_parameters
from lmray.storage import write_bytes

_TEMPLATE = """\
# {{ sweep.space.name }}

{{ sweep.space.hypothesis }}

{{ answer }}

{{ table }}

Loss is validation loss in nats per token: of the whole validation split for a trial that is done, of
the first {{ "{:,}".format(sweep.space.base.evaluation.prefix_tokens) }} validation tokens at the last rung for a stopped one. A star marks the best.
{% if summary %}
## Over seeds

{{ summary }}
{% endif %}
![final loss]({{ pictures[0] }})
{% for picture in pictures[1:] %}
![loss curves]({{ picture }})
{% endfor %}
## How it was made

- {{ sweep.rows | length }} trials, {{ "{:,}".format(sweep.space.base.budget.tokens) }} training tokens each if not stopped; \
rungs at {{ rungs }} tokens, one in {{ sweep.space.asha.reduction_factor }} goes on.
- Early stopping trained {{ "{:,}".format(sweep.trained_tokens) }} of {{ "{:,}".format(sweep.budget_tokens) }} tokens ({{ share }} %).
- Model: {{ model }}; {{ parameters }} parameters; batch {{ sweep.space.base.data.batch_size }} x {{ sweep.space.base.model.context_length }} tokens.
- Seeds: {{ sweep.space.seeds | join(", ") }}.{% if life %} lmray {{ life.versions.lmray }} ({{ life.git_revision }}), torch {{ life.versions.torch }}, \
Python {{ life.versions.python }}, {{ life.hardware.cpu }} ({{ life.hardware.cores }} cores), GPU {{ life.hardware.gpu }}.{% endif %}
"""


def write_report(sweep: Sweep, runs: Path) -> Path:
    """Writes the report of a sweep, finished or not, and returns the path of report.md."""
    folder = sweep.directory / "report"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for key in plots.numeric_axes(sweep):
        path = folder / f"loss-against-{key.rpartition('.')[2]}"
        plots.against(sweep, key, path)
        pictures.append(f"{path.name}.png")
    plots.curves(sweep, folder / "curves")
    pictures.append("curves.png")
    write_bytes(folder / "trials.csv", as_csv(sweep).encode())
    best, base = sweep.best, sweep.space.base
    directories = [RunDirectory(runs / row.trial.id) for row in sweep.rows]
    lives = [life for d in directories if d.status != "absent" for life in d.facts["lives"]]
    model = base.model
    text = jinja2.Template(_TEMPLATE, undefined=jinja2.StrictUndefined).render(
        sweep=sweep,
        answer=answer(sweep),
        table=markdown(columns(sweep.space), [readable(row, best) for row in sweep.rows]),
        summary=_summary(sweep) if len(sweep.space.seeds) > 1 else "",
        pictures=pictures,
        rungs=", ".join(f"{rung:,}" for rung in sweep.space.asha.rungs(base.budget.tokens))
        or "none",
        share=round(100 * sweep.trained_tokens / sweep.budget_tokens),
        model=f"{model.num_layers} layers, d_model {model.d_model}, {model.num_heads} heads, "
        f"d_ff {model.ffn_width}, vocabulary {model.vocab_size:,}, context {model.context_length}",
        parameters=f"{num_parameters(model):,}",
        life=lives[-1] if lives else None,
    )
    write_bytes(folder / "report.md", text.encode())
    return folder / "report.md"


def answer(sweep: Sweep) -> str:
    """The result in a sentence or two: the best values, and whether they lie at an edge of the space."""
    best = sweep.best
    if best is None:
        return "No trial is done, so there is no answer yet."
    shown = ", ".join(f"{key} = {best.trial.changes[key]}" for key in sweep.space.axes)
    loss = f"{best.loss:.4f} nats/token, {best.measured['bits_per_byte']:.4f} bits/byte"
    text = f"**Best: {shown}** with a validation loss of {loss}."
    for key in plots.numeric_axes(sweep):
        values, value = sorted(sweep.space.axes[key]), best.trial.changes[key]
        if len(values) > 2:
            place = (
                "the edge of the values tried, so try further out"
                if value
                in (
                    values[0],
                    values[-1],
                )
                else "the interior of the values tried"
            )
            text += (
                f" {key} is in {place}."
                if place.startswith("the interior")
                else f" {key} is at {place}."
            )
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
