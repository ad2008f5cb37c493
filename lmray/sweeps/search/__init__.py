"""How a space is searched: which combinations are tried, and what an outcome says of the next."""

from lmray.sweeps.search.along import Along
from lmray.sweeps.search.bisection import Bisect
from lmray.sweeps.search.bracket import Bracket
from lmray.sweeps.search.designs import Grid, Random, Sobol
from lmray.sweeps.search.outcomes import Outcome, outcomes
from lmray.sweeps.search.population import Population
from lmray.sweeps.search.tpe import Tpe

Sequential = Tpe | Bracket | Bisect | Population
"""Searches that learn from outcomes what to try next."""

Search = Grid | Random | Sobol | Sequential

KINDS: dict[str, type[Search]] = {
    each.__name__: each for each in (Grid, Random, Sobol, Tpe, Bracket, Bisect, Population)
}

__all__ = [
    "KINDS",
    "Along",
    "Bisect",
    "Bracket",
    "Grid",
    "Outcome",
    "Population",
    "Random",
    "Search",
    "Sequential",
    "Sobol",
    "Tpe",
    "outcomes",
]
