"""The picture of a population: what each member had and how its loss fell, over tokens."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from lmray.sweeps.answers.lineage import ancestry, generations, took_over
from lmray.sweeps.answers.plots import numeric_axes, panels
from lmray.sweeps.answers.tables import Row, Sweep

_OTHERS: dict[str, Any] = {"color": "#a9b4bd", "linewidth": 1.0, "zorder": 2}
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
                axes.axvline(end, color="#cccccc", linewidth=0.8, linestyle=":", zorder=1)
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
    ends = []
    for row in sweep.rows:
        points = _points(row, known)
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, **(_BEST if row.trial.id in best else _OTHERS))
            ends += [y[-1]] if row.status == "done" else []
    if ends:  # what is above the ends of the first generation says nothing of who is ahead
        room = 0.08 * (max(ends) - min(ends)) or 0.1
        axes.set_ylim(min(ends) - room, max(ends) + 4 * room)
    axes.set_ylabel("validation loss, prefix")


def _points(row: Row, known: dict[str, Row]) -> list[tuple[int, float]]:
    """A member's curve, from the end of its parent's on."""
    parent = known.get(row.trial.run.begins_from)
    records = [*(parent.curve[-1:] if parent else []), *row.curve]
    return [(r["tokens"], r["loss"]) for r in records if r["loss"] is not None]
