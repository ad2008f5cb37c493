"""The picture of a search along one axis where other axes vary too: a line for each of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from lmray.sweeps.answers.bracket import Level, Traced, searched
from lmray.sweeps.answers.optimum import Losses, optimum
from lmray.sweeps.answers.plots import draw_optimum, figure
from lmray.sweeps.answers.tables import Sweep


def along(sweep: Sweep, found: Sequence[Traced], path: Path) -> None:
    """Loss against the value searched for, each line where it got furthest, with its optimum.

    Points are means over seeds; crosses at the top edge are values at which a line diverged.
    """
    with figure(path, (8, 4.8)) as axes:
        axes.margins(y=0.12)
        colours = matplotlib.colormaps["viridis"]
        for number, each in enumerate(found):
            colour = colours(0.85 * number / max(1, len(found) - 1))
            level = furthest(each)
            means = _means(level.losses)
            label = f"{each.name}, {level.name}"
            axes.plot(list(means), list(means.values()), "o-", color=colour, label=label)
            draw_optimum(axes, optimum(level.losses), colour)
            diverged = [v for v, outcome in each.line.points if outcome.state == "diverged"]
            look: Any = {"color": colour, "markersize": 7, "transform": axes.get_xaxis_transform()}
            axes.plot(diverged, [0.97 - 0.03 * number] * len(diverged), "X", **look)
        axes.set_xscale("log")
        axes.set_xlabel(searched(sweep))
        axes.set_ylabel("validation loss (nats/token)")
        axes.set_title(f"{sweep.space.name}: loss against {searched(sweep)} on each line")
        place: Any = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        axes.legend(fontsize=8, frameon=False, **place)


def furthest(each: Traced) -> Level:
    """The last level at which several values have a loss, or else the first."""
    several = [level for level in each.levels if len(level.losses) > 1]
    return several[-1] if several else each.levels[0]


def _means(losses: Losses) -> dict[float, float]:
    return {value: sum(by.values()) / len(by) for value, by in sorted(losses.items())}
