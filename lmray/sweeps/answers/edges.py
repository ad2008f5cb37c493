"""The edge of stability that a bisection found, by seed, and how far below it the best value is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmray.sweeps.answers.bracket import Traced, searched
from lmray.sweeps.answers.comparison import Table
from lmray.sweeps.answers.confidence import Estimate
from lmray.sweeps.answers.tables import Row, Sweep
from lmray.sweeps.search import Bisect
from lmray.sweeps.search.bisection import edge

NOTE = (
    "A value is stable if its run reached the end; a seed's edge lies between the smallest value "
    "that diverged and the largest stable one below that. The best value has the lowest final "
    "loss; its ratio is to the largest stable value, and unknown where nothing diverged."
)
"""What the table of `edges` says, for its reader."""


@dataclass(frozen=True)
class Edge:
    """One seed's, on one line; NaN is what is not known."""

    best: float
    """The value of lowest final loss."""
    stable: float
    """The largest stable value below `diverged`."""
    diverged: float
    """The smallest value that diverged."""

    @property
    def ratio(self) -> float:
        """How far below the edge the best is."""
        return math.nan if math.isnan(self.diverged) else self.best / self.stable


def by_seed(sweep: Sweep, each: Traced) -> dict[int, Edge]:
    """The edge of each seed on a line."""
    found = {}
    for seed in sweep.space.seeds:
        trials = [row for row in each.rows if row.trial.changes["seed"] == seed]
        best = min(trials, key=lambda row: row.loss, default=None)
        value = math.nan if best is None or math.isinf(best.loss) else _value(sweep, best)
        found[seed] = Edge(value, *edge([(_value(sweep, row), row.status) for row in trials]))
    return found


def edges(sweep: Sweep, found: Sequence[Traced]) -> Table:
    """Best and edge of each line, by seed and on average; without rows if none was looked for."""
    name = searched(sweep).rpartition(".")[2]
    header = ["seed", f"best {name}", "largest stable", "smallest diverged", "best / edge"]
    if not isinstance(sweep.space.search, Bisect):
        return header, []
    rows = []
    for each in found:
        own = by_seed(sweep, each)
        lines = [
            [str(seed), *map(_cell, (at.best, at.stable, at.diverged, at.ratio))]
            for seed, at in own.items()
        ]
        if len(own) > 1:
            columns = [[getattr(at, key) for at in own.values()] for key in _COLUMNS]
            lines.append(["mean ± sd", *map(_spread, columns)])
        rows += [[each.name, *cells] for cells in lines] if len(found) > 1 else lines
    return ["", *header] if len(found) > 1 else header, rows


_COLUMNS = ("best", "stable", "diverged", "ratio")


def _spread(values: list[float]) -> str:
    """Of all seeds; unknown where one is."""
    if any(map(math.isnan, values)):
        return "-"
    estimate = Estimate(tuple(values))
    return f"{estimate.mean:.3g} ± {estimate.spread:.2g}"


def edge_sentence(sweep: Sweep, found: Sequence[Traced]) -> str:
    """The edge of a sweep of one line; empty where none was looked for."""
    if len(found) != 1 or not isinstance(sweep.space.search, Bisect):
        return ""
    own, key = list(by_seed(sweep, found[0]).values()), searched(sweep)
    if any(math.isnan(at.ratio) for at in own):
        return f" The edge of stability of {key} is not known with every seed."
    stable, ratio = (Estimate(tuple(getattr(at, k) for at in own)) for k in ("stable", "ratio"))
    spread = "" if len(own) == 1 else f" (sd {stable.spread:.2g} over {len(own)} seeds)"
    return (
        f" The largest stable {key} is {stable.mean:.3g}{spread}; the best is {ratio.mean:.3g} "
        f"of the edge{'' if len(own) == 1 else f' (sd {ratio.spread:.2g})'}."
    )


def _value(sweep: Sweep, row: Row) -> float:
    return row.trial.value(searched(sweep))


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"
