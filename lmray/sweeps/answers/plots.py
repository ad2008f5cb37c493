"""How pictures of a sweep look and are kept; the one of its loss against what was varied."""

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmray.storage import atomic_writer
from lmray.sweeps.answers.bracket import Level
from lmray.sweeps.answers.optimum import Optimum
from lmray.sweeps.answers.tables import Sweep

STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "svg.hashsalt": "lmray",
}


@contextmanager
def figure(path: Path, size: tuple[float, float]) -> Iterator[Axes]:
    """Axes to draw on, saved in the end as path.png and path.svg."""
    with panels(path, size, 1) as (axes,):
        yield axes


@contextmanager
def panels(path: Path, size: tuple[float, float], count: int) -> Iterator[list[Axes]]:
    """As `figure`, several axes above each other that share the horizontal one."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        yield list(figure.subplots(count, sharex=True, squeeze=False)[:, 0])
        save(figure, path)


def save(drawn: Figure, path: Path) -> None:
    """Saves a figure as path.png and path.svg, each whole or absent."""
    with atomic_writer(path.with_suffix(".png")) as file:
        drawn.savefig(file, format="png", dpi=150)
    with atomic_writer(path.with_suffix(".svg")) as file:
        drawn.savefig(file, format="svg", metadata={"Date": None})


def against(sweep: Sweep, key: str, path: Path, fits: Sequence[tuple[Level, Optimum]] = ()) -> None:
    """Loss against the values of one numeric axis, logarithmic where they span a factor of ten.

    One line for each rung and one for the end, so that a line compares at equal tokens; it goes
    through the means over seeds, those of the best of what else varies. A cross at the top edge is
    a diverged trial. `fits` are drawn as parabolas with a bar for the optimum's interval.
    """
    with figure(path, (6.4, 4.4)) as axes:
        axes.margins(y=0.12)  # room for the note below the best point
        lines = [(r, f"at {r:,} tokens, prefix", _at_rung(sweep, key, r)) for r in rungs(sweep)]
        budget = sweep.space.base.budget.tokens
        lines.append((budget, "at the end, whole split", _at_end(sweep, key)))
        fitted = {level.tokens: fit for level, fit in fits}
        shades = matplotlib.colormaps["Blues"]
        for number, (tokens, label, points) in enumerate(lines, start=1):
            if points:
                colour = shades(0.25 + 0.65 * number / len(lines))
                lowest = _lowest(points)
                values, _, losses = zip(*points, strict=True)
                axes.plot(values, losses, "o", color=colour, markersize=5)
                axes.plot(list(lowest), list(lowest.values()), color=colour, label=label)
                if tokens in fitted:
                    draw_optimum(axes, fitted[tokens], colour)
        diverged = [row.trial.value(key) for row in sweep.rows if row.status == "diverged"]
        if diverged:
            top = axes.get_xaxis_transform()
            height = [0.97] * len(diverged)
            look: Any = {"color": "#b3361e", "markersize": 8, "transform": top}
            axes.plot(diverged, height, "X", label="diverged", **look)
        winner = sweep.best_combination
        if winner is not None:
            best = winner.rows[0].trial.value(key)
            axes.axvline(best, color="#999999", linewidth=0.8, linestyle=":")
            axes.annotate(
                f"best {best:g}: {winner.loss.mean:.3f}",
                (best, 0.02),
                xycoords=axes.get_xaxis_transform(),
                xytext=(5, 0),
                textcoords="offset points",
                fontsize=9,
            )
        values = numeric_axes(sweep)[key]
        if min(values) > 0 and max(values) >= 10 * min(values):
            axes.set_xscale("log")
        axes.set_xlabel(key)
        axes.set_ylabel("validation loss (nats/token)")
        axes.set_title(f"{sweep.space.name}: loss against {key}")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, frameon=False)


def draw_optimum(axes: Axes, fit: Optimum, colour: Any) -> None:
    """A fitted parabola, dashed, and at its lowest point a bar as long as the 95 % interval."""
    if math.isnan(fit.value):
        return
    steps = [i / 40 for i in range(41)]
    low, high = fit.values[0], fit.values[-1]
    across = [low * (high / low) ** step for step in steps]
    axes.plot(across, [fit.loss_at(v) for v in across], "--", color=colour, linewidth=1)
    axes.plot([fit.value], [fit.loss], "|", color=colour, markersize=12)
    if not math.isnan(fit.low):
        ends = [fit.low, fit.high]
        axes.plot(ends, [fit.loss] * 2, color=colour, linewidth=8, alpha=0.4)


def rungs(sweep: Sweep) -> tuple[int, ...]:
    """The tokens at which a sweep compares its trials, its end aside."""
    return sweep.space.asha.rungs(sweep.space.base.budget.tokens)


Points = list[tuple[float, tuple[Any, ...], float]]
"""A value of an axis, the values of all axes, and a loss."""


def _at_rung(sweep: Sweep, key: str, rung: int) -> Points:
    points = []
    for row in sweep.rows:
        reached = [r["loss"] for r in row.curve if r["tokens"] >= rung]
        if reached and reached[0] is not None:
            points.append((row.trial.value(key), row.values, reached[0]))
    return points


def _at_end(sweep: Sweep, key: str) -> Points:
    done = [row for row in sweep.rows if row.status == "done"]
    return [(row.trial.value(key), row.values, row.loss) for row in done]


def _lowest(points: Points) -> dict[float, float]:
    """By value, ascending: the mean over seeds of the best combination that has it."""
    groups: dict[tuple[float, tuple[Any, ...]], list[float]] = {}
    for value, values, loss in points:
        groups.setdefault((value, values), []).append(loss)
    lowest: dict[float, float] = {}
    for (value, _), losses in groups.items():
        lowest[value] = min(lowest.get(value, math.inf), statistics.fmean(losses))
    return dict(sorted(lowest.items()))


def numeric_axes(sweep: Sweep) -> dict[str, list[float]]:
    """The axes that are there, as numbers, in every trial, and the values tried, ascending."""
    found = {}
    for key in sweep.space.axes:
        values = {row.trial.changes.get(key, "") for row in sweep.rows}
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            found[key] = sorted(values)
    return found
