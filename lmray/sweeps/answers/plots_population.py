"""The picture of a population: what each member had and how its loss fell, over tokens."""

import statistics
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from lmray.sweeps.answers.lineage import ancestry, generations, took_over
from lmray.sweeps.answers.plots import numeric_axes, panels
from lmray.sweeps.answers.tables import Row, Sweep

_OTHERS: dict[str, Any] = {"color": "#93a1ab", "linewidth": 1.0, "zorder": 2}
_BEST: dict[str, Any] = {"color": "#2a6f97", "linewidth": 2.6, "zorder": 4}


def population(sweep: Sweep, path: Path) -> None:
    """A panel for each number that is varied and one for the loss, as path.png and path.svg.

    A line is a member's generation; thin dashes lead from a state to whoever took it over. The
    ancestry of the best is drawn thick; a cross is a member that diverged.
    """
    keys = list(numeric_axes(sweep))
    with panels(path, (8, 2.4 + 2.4 * len(keys)), len(keys) + 1) as found:
        for key, axes in zip(keys, found, strict=False):
            _values(sweep, key, axes)
        _losses(sweep, found[-1])
        for axes in found:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            for members in generations(sweep)[:-1]:
                end = members[0].trial.run.training_tokens
                axes.axvline(end, color="#d8d8d8", linewidth=0.8, linestyle=":", zorder=1)
        found[-1].set_xlabel("training tokens (dotted: generations)")
        found[0].set_title(f"{sweep.space.name}: the population, thick the lineage of the best")


def _values(sweep: Sweep, key: str, axes: Axes) -> None:
    known, over = {row.trial.id: row for row in sweep.rows}, took_over(sweep)
    best = {row.trial.id for row in ancestry(sweep)}
    for row in sweep.rows:
        value, look = row.trial.value(key), _BEST if row.trial.id in best else _OTHERS
        begin, end = row.began_at_tokens, row.trial.run.training_tokens
        axes.plot([begin, end], [value, value], **look)
        if row.trial.id in over:
            before = known[row.trial.run.begins_from].trial.value(key)
            dashes: dict[str, Any] = {**look, "linewidth": look["linewidth"] / 2, "linestyle": "--"}
            axes.plot([begin, begin], [before, value], **dashes)
        if row.status == "diverged":
            axes.plot([end], [value], "X", color="#b3361e", markersize=7, zorder=5)
    values = numeric_axes(sweep)[key]
    if min(values) > 0 and max(values) >= 3 * min(values):
        axes.set_yscale("log")
    axes.set_ylabel(key)


def _losses(sweep: Sweep, axes: Axes) -> None:
    known = {row.trial.id: row for row in sweep.rows}
    best = {row.trial.id for row in ancestry(sweep)}
    for row in sweep.rows:
        if points := _points(row, known):
            axes.plot(*zip(*points, strict=True), **(_BEST if row.trial.id in best else _OTHERS))
    # What is above the middle of the first generation's ends says nothing of who is ahead.
    ends = [[r.loss for r in members if r.status == "done"] for members in generations(sweep)]
    done = [loss for losses in ends for loss in losses]
    if ends and ends[0] and (top := statistics.median(ends[0])) > min(done):
        axes.set_ylim(min(done) - 0.05 * (top - min(done)), top)
    axes.set_ylabel("validation loss, prefix")


def _points(row: Row, known: dict[str, Row]) -> list[tuple[int, float]]:
    """A member's curve, from the end of its parent's on."""
    parent = known.get(row.trial.run.begins_from)
    records = [*(parent.curve[-1:] if parent else []), *row.curve]
    return [(r["tokens"], r["loss"]) for r in records if r["loss"] is not None]
