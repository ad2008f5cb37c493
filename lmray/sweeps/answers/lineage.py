"""How a population came to its best: its generations, and the ancestry of the best of the last."""

import math
import statistics

from lmray.sweeps.answers.comparison import Table, number
from lmray.sweeps.answers.tables import Row, Sweep
from lmray.sweeps.axes import shown
from lmray.sweeps.search import Population
from lmray.sweeps.search.population import TOKENS

NOTE = (
    "Losses are of the whole validation split, after equal tokens within a generation. A member "
    "that took over began from the state of one of the best of the generation before, with other "
    "values; the others went on as they were. A run's seconds are those of its own generation."
)
"""What the tables say, for their reader."""


def generations(sweep: Sweep) -> list[list[Row]]:
    """The members by generation, the first one first; none if the search is no population."""
    born: dict[int, list[Row]] = {}
    for row in sweep.rows if isinstance(sweep.space.search, Population) else []:
        if TOKENS in row.trial.changes:
            born.setdefault(row.trial.run.budget.tokens, []).append(row)
    return [born[tokens] for tokens in sorted(born)]


def ancestry(sweep: Sweep) -> list[Row]:
    """The best and those that it and they began from, the first one first."""
    known = {row.trial.id: row for row in sweep.rows}
    found: list[Row] = []
    row = sweep.best
    while row is not None:
        found.insert(0, row)
        row = known.get(row.trial.run.begins_from)
    return found


def took_over(sweep: Sweep) -> set[str]:
    """The trials that replaced a member, by id: their values are not those of their parent."""
    known = {row.trial.id: row for row in sweep.rows}
    parents = {row.trial.id: known.get(row.trial.run.begins_from) for row in sweep.rows}
    return {i for i, parent in parents.items() if parent and parent.values != known[i].values}


def ancestors(sweep: Sweep) -> Table:
    """The ancestry of the best, a generation a line; without rows if there is no population."""
    names = [key.rpartition(".")[2] for key in sweep.space.axes]
    header = ["generation", "tokens", *names, "began", "loss", "rank", "seconds", "run"]
    over, born = took_over(sweep), generations(sweep)
    rows = []
    for row in ancestry(sweep) if born else []:
        place = next((i for i, each in enumerate(born) if row in each), None)
        if place is None:  # added beside the population, and better than it
            return header, []
        losses = sorted(each.loss for each in born[place])
        began = "took over" if row.trial.id in over else "went on" if place else "anew"
        rows.append(
            [
                str(place + 1),
                f"{row.trial.run.training_tokens:,}",
                *map(shown, row.values),
                began,
                number(row.loss),
                f"{losses.index(row.loss) + 1} of {len(losses)}",
                f"{row.measured.get('seconds', 0.0):.1f}",
                row.trial.id,
            ]
        )
    return header, rows


def by_generation(sweep: Sweep) -> Table:
    """The losses of each generation; without rows if there is no population."""
    header = ["generation", "tokens", "members", "took over", "not done"]
    over = took_over(sweep)
    rows = []
    for place, members in enumerate(generations(sweep)):
        losses = [row.loss for row in members if row.status == "done"] or [math.inf]
        new = sum(row.trial.id in over for row in members)
        counts = [len(members), new, sum(row.status != "done" for row in members)]
        found = (min(losses), statistics.median(losses), max(losses))
        tokens = f"{members[0].trial.run.training_tokens:,}"
        rows.append([str(place + 1), tokens, *map(str, counts), *map(number, found)])
    return [*header, "best loss", "median", "worst"], rows


def sentence(sweep: Sweep) -> str:
    """How the values of the best came about; empty if there is no population or no ancestry."""
    rows = ancestry(sweep)
    if not generations(sweep) or len(rows) < 2:
        return ""
    courses = []
    for key in sweep.space.axes:
        values = [shown(row.trial.value(key)) for row in rows]
        course = [v for i, v in enumerate(values) if i == 0 or v != values[i - 1]]
        courses += [f"{key} was {', '.join(course)}"] if len(course) > 1 else []
    told = " and ".join(courses) or "nothing changed"
    return f" Along its lineage of {len(rows)} generations {told}."
