"""How a space is searched: which combinations are tried, and what an outcome says of the next."""

from lmray.sweeps.search.designs import Grid, Random, Sobol
from lmray.sweeps.search.outcomes import Outcome, outcomes
from lmray.sweeps.search.tpe import Tpe

Search = Grid | Random | Sobol | Tpe

KINDS: dict[str, type[Search]] = {each.__name__: each for each in (Grid, Random, Sobol, Tpe)}

__all__ = ["KINDS", "Grid", "Outcome", "Random", "Search", "Sobol", "Tpe", "outcomes"]
