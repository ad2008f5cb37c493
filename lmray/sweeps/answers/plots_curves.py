"""Loss over tokens, trial by trial."""

import math
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.ticker import EngFormatter

from lmray.sweeps.answers.plots import figure, rungs
from lmray.sweeps.answers.tables import Row, Sweep
from lmray.sweeps.axes import spoken

_ENDS = {
    "done": "o",
    "stopped": "s",
    "paused": "D",
    "diverged": "X",
    "failed": "v",
    "running": ">",
    "waiting": ".",
}
"""Marker at the end of a trial's curve, by status."""

_BASELINE = "#000000"
_PAIRS = matplotlib.colormaps["tab20"]
_CATEGORIES = [to_hex(_PAIRS(index)) for index in (*range(0, 20, 2), *range(1, 20, 2))]
"""Twenty colours without an order, the dark ones first, for variants beside a baseline."""


def curves(sweep: Sweep, path: Path) -> None:
    """Validation loss over training tokens, one line a trial, as path.png and path.svg.

    A trial that reached its end is marked with a dot, a stopped one with a square, a diverged one
    with a cross; dotted lines are the rungs. The baseline's, if there is one, lie above the others.
    """
    colour_of = colours(sweep)
    with figure(path, (8, 4.8)) as axes:
        for row in sweep.rows:
            points = [(r["tokens"], r["loss"]) for r in row.curve if r["loss"] is not None]
            if not points:
                continue
            x, y = zip(*points, strict=True)
            colour = colour_of[row.values]
            look: Any = {"color": colour, "zorder": 3 if colour == _BASELINE else 2}
            axes.plot(x, y, linewidth=1.6, label=_label(sweep, row), **look)
            axes.plot(x[-1], y[-1], _ENDS[row.status], markersize=7, **look)
        levels = rungs(sweep)
        for rung in levels:
            axes.axvline(rung, color="#999999", linewidth=0.8, linestyle=":")
        axes.set_xlabel("training tokens (dotted: rungs)" if levels else "training tokens")
        axes.set_ylabel("validation loss (nats/token), fixed prefix")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        _limit(axes, sweep)
        axes.set_title(f"{sweep.space.name}: loss over tokens")
        named = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        if named:
            size = 8 if len(named) <= _MOST_NAMES else 5
            place: Any = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
            columns = -(-len(named) // (2 * _MOST_NAMES))
            axes.legend(
                named.values(),
                named.keys(),
                ncols=min(columns, 2),
                fontsize=size,
                frameon=False,
                **place,
            )


_MOST_NAMES = 20
"""Trials that a legend has room for, one by one and in full size."""


def _label(sweep: Sweep, row: Row) -> str:
    """A trial and how it ended; where they are many, the combination alone."""
    if len(sweep.rows) <= _MOST_NAMES:
        return f"{row.trial.name}  ({row.status})"
    return spoken(row.trial.combination)


def _limit(axes: Axes, sweep: Sweep) -> None:
    """Keeps a spike from flattening the rest: nothing above 1.1 ln V is of interest."""
    ceiling = 1.1 * math.log(sweep.space.base.model.vocab_size)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, min(top, ceiling))


def colours(sweep: Sweep) -> dict[tuple[Any, ...], str]:
    """One colour a combination, by the values of the axes, as hexadecimal digits.

    Along a scale, in the order of the space; but variants beside a baseline have no order: each has
    a colour of its own, as long as there are enough, and the baseline is black.
    """
    trials = {row.values: row.trial.combination for row in sweep.rows}
    others = [values for values, each in trials.items() if not sweep.space.is_baseline(each)]
    if len(others) < len(trials) and len(others) <= len(_CATEGORIES):
        shades = list(_CATEGORIES)
    else:
        scale = matplotlib.colormaps["viridis"]
        shades = [to_hex(scale(0.92 * i / max(1, len(others) - 1))) for i in range(len(others))]
    return dict.fromkeys(trials, _BASELINE) | dict(zip(others, shades, strict=False))
