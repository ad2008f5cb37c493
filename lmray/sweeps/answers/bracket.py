"""What a sweep shows along the axis it searches: the bracket and the optimum of each line."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmray.sweeps.answers.comparison import Table
from lmray.sweeps.answers.optimum import WINDOW, Losses, Optimum, optimum
from lmray.sweeps.answers.tables import Row, Sweep, summaries
from lmray.sweeps.axes import identity, shown, spoken
from lmray.sweeps.ledger import Event
from lmray.sweeps.search import Along, Bracket
from lmray.sweeps.search.bracket import found_on
from lmray.sweeps.search.lines import Line, lines
from lmray.sweeps.search.outcomes import outcomes

BRACKETS_NOTE = "The best is the value that got furthest with the lowest mean loss."
"""What the table of `brackets` says, for its reader."""

OPTIMA_NOTE = (
    "The optimum is the lowest point of a parabola in the logarithm, by least squares through the "
    f"losses at values within a factor of {WINDOW:g} of the lowest, each seed with a level of its "
    "own; its interval is Fieller's, from how the losses scatter around the parabola."
)
"""The same of `optima`."""


@dataclass(frozen=True)
class Level:
    """The losses of one line after equal tokens."""

    tokens: int
    """A rung's, or the budget's."""
    at_end: bool
    """Whether they are final losses, of the whole split."""
    losses: Losses

    @property
    def name(self) -> str:
        """Where it is, as a reader says it."""
        return "the end" if self.at_end else f"{self.tokens:,} tokens"


@dataclass(frozen=True)
class Traced:
    """A line with its trials."""

    line: Line
    name: str
    """The values of the other axes; empty where there are none."""
    rows: tuple[Row, ...]
    levels: tuple[Level, ...]
    """The rungs, ascending, then the end."""

    @property
    def fits(self) -> list[tuple[Level, Optimum]]:
        """The optimum at each level where there is a loss."""
        return [(level, optimum(level.losses)) for level in self.levels if level.losses]


def searched(sweep: Sweep) -> str:
    """The axis that a sweep goes along; empty if it goes along none."""
    search = sweep.space.search
    return search.key if isinstance(search, Along) else ""


def traced(sweep: Sweep, events: Sequence[Event]) -> list[Traced]:
    """The lines of a sweep's search, in the order of the axes; none if it goes along none."""
    key = searched(sweep)
    if not key:
        return []
    groups = [(g.combination, [row.trial.id for row in g.rows]) for g in summaries(sweep)]
    found = []
    for line in lines(sweep.space.axes, key, outcomes(groups, events)):
        wanted = identity(line.others)
        rows = tuple(
            row
            for row in sweep.rows
            if key in row.trial.combination
            and identity({k: v for k, v in row.trial.combination.items() if k != key}) == wanted
        )
        found.append(Traced(line, spoken(line.others), rows, _levels(sweep, key, rows)))
    return found


def _levels(sweep: Sweep, key: str, rows: Sequence[Row]) -> tuple[Level, ...]:
    budget = sweep.space.base.budget.tokens
    rungs = sweep.space.asha.rungs(budget)
    there: dict[int, dict[float, dict[int, float]]] = {rung: {} for rung in (*rungs, budget)}
    for row in rows:
        value, seed = row.trial.value(key), row.trial.changes["seed"]
        for rung in rungs:
            reached = [r["loss"] for r in row.curve if r["tokens"] >= rung]
            if reached and reached[0] is not None:
                there[rung].setdefault(value, {})[seed] = reached[0]
        if row.status == "done":
            there[budget].setdefault(value, {})[seed] = row.loss
    return tuple(Level(tokens, tokens == budget, losses) for tokens, losses in there.items())


def brackets(sweep: Sweep, found: Sequence[Traced]) -> Table:
    """How far each line's bracket is closed; without rows if the search is none."""
    search = sweep.space.search
    name = searched(sweep).rpartition(".")[2]
    header = ["values", f"best {name}", "next below", "next above", "diverges from", "bracket"]
    if not isinstance(search, Bracket):
        return header, []
    rows = []
    for each in found:
        at = found_on(each.line)
        numbers = [_number(v) for v in (at.best, at.below, at.above, at.diverged)]
        cells = [str(len(each.line.points)), *numbers, _state(search, each.line)]
        rows.append([each.name, *cells] if len(found) > 1 else cells)
    return ["", *header] if len(found) > 1 else header, rows


def _state(search: Bracket, line: Line) -> str:
    found = found_on(line)
    if line.waits or any(each.state == "running" for _, each in line.points):
        return "under way"
    if search.lacks(line):
        return f"not closed within its limit of {search.trials} values"
    told = "closed" if found.interior else "the best is at its edge"
    if search.gaps(found):
        told = "the values that would close it failed"
    if search.to_divergence and math.isnan(found.diverged):
        told += f", none up to {line.points[-1][0]:g} diverged"
    return told


def optima(found: Sequence[Traced]) -> Table:
    """The fitted optimum of each line after each number of tokens."""
    header = ["at", "fitted optimum", "95 % interval", "losses fitted", "note"]
    rows = []
    for each in found:
        for level, fit in each.fits:
            interval = "unknown" if math.isnan(fit.low) else f"{fit.low:.3g} to {fit.high:.3g}"
            optimal = "unknown" if math.isnan(fit.value) else f"{fit.value:.3g}"
            cells = [level.name, optimal, interval, str(fit.n), fit.unknown or "-"]
            rows.append([each.name, *cells] if len(found) > 1 else cells)
    return ["", *header] if len(found) > 1 else header, rows


def fitted_sentence(sweep: Sweep, found: Sequence[Traced]) -> str:
    """The optimum of a sweep of one line, where the furthest level has an interval; or empty."""
    if len(found) != 1:
        return ""
    known = [(level, fit) for level, fit in found[0].fits if not fit.unknown]
    if not known:
        asked = isinstance(sweep.space.search, Bracket)
        return " No interval of the fitted optimum is known." if asked else ""
    level, fit = known[-1]
    return (
        f" Fitted optimum at {level.name}: {searched(sweep)} = {fit.value:.3g}, 95 % interval "
        f"{fit.low:.3g} to {fit.high:.3g}."
    )


def _number(value: float) -> str:
    return "-" if math.isnan(value) else shown(value)
