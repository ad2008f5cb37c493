"""The edge of stability that a bisection found: by seed, and how far below it the best value is."""

import math
from collections.abc import Sequence

from lmray.sweeps.answers.bracket import Traced, searched
from lmray.sweeps.answers.comparison import Table
from lmray.sweeps.answers.confidence import Estimate
from lmray.sweeps.answers.tables import Row, Sweep
from lmray.sweeps.axes import shown
from lmray.sweeps.search import Bisect, Outcome
from lmray.sweeps.search.bisection import edge
from lmray.sweeps.search.bracket import found_on

NOTE = (
    "A value is stable if its run reached the end; the edge lies between the smallest value that "
    "diverged and the largest stable one below that. With all seeds, a value is stable if it is "
    "with each, and that is the gap which was bisected: a single seed's may be wider. The best "
    "value has the lowest final loss; its ratio is to the largest stable value."
)
"""What the table of `edges` says, for its reader."""


def edges(sweep: Sweep, found: Sequence[Traced]) -> Table:
    """Best and edge of each line, by seed and with all; without rows if nothing was bisected."""
    name = searched(sweep).rpartition(".")[2]
    header = ["seed", f"best {name}", "largest stable", "smallest diverged", "best / edge"]
    if not isinstance(sweep.space.search, Bisect):
        return header, []
    rows = []
    for each in found:
        own = []
        ratios = []
        for seed in sweep.space.seeds:
            trials = [row for row in each.rows if row.trial.changes["seed"] == seed]
            best = min(trials, key=lambda row: row.loss, default=None)
            value = math.nan if best is None or math.isinf(best.loss) else _value(sweep, best)
            stable, diverged = edge([(_value(sweep, row), _outcome(row)) for row in trials])
            ratios.append(value / stable)
            own.append([str(seed), *map(_cell, (value, stable, diverged, ratios[-1]))])
        if len(sweep.space.seeds) > 1:
            own.append(["all", *_together(each, ratios)])
        rows += [[each.name, *cells] for cells in own] if len(found) > 1 else own
    return ["", *header] if len(found) > 1 else header, rows


def _together(each: Traced, ratios: list[float]) -> list[str]:
    best = found_on(each.line).best
    stable, diverged = edge(each.line.known)
    spread = Estimate(tuple(ratio for ratio in ratios if not math.isnan(ratio)))
    told = f"{_cell(best / stable)} (seeds: {_cell(spread.mean)}, sd {_cell(spread.spread)})"
    return [*map(_cell, (best, stable, diverged)), told]


def edge_sentence(sweep: Sweep, found: Sequence[Traced]) -> str:
    """The edge of a sweep of one line; empty where nothing was bisected."""
    if len(found) != 1 or not isinstance(sweep.space.search, Bisect):
        return ""
    line, key = found[0].line, searched(sweep)
    stable, diverged = edge(line.known)
    if math.isnan(stable):
        return f" No {key} is known to be stable."
    if math.isnan(diverged):
        return f" No {key} up to {shown(stable)} diverged."
    best = found_on(line).best
    return (
        f" The largest stable {key} is {shown(stable)}, {shown(diverged)} diverged; the best is "
        f"{best / stable:.3g} of that."
    )


def _value(sweep: Sweep, row: Row) -> float:
    return row.trial.value(searched(sweep))


def _outcome(row: Row) -> Outcome:
    state = row.status if row.status in ("done", "diverged") else "failed"
    return Outcome(row.trial.combination, state, row.loss)


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"
