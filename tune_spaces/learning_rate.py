"""Which peak learning rate gives the lowest validation loss at equal tokens?

Hypothesis: loss against the logarithm of the learning rate is a bowl. Below the optimum training
is merely slow; above it the loss rises steeply until runs diverge; the best rate lies within a
factor of a few of that edge (for models of 17 to 36 M parameters the coursework's write-ups found
2e-3 to 5e-3, diverging from 5e-3 to 7e-3 on). A smaller model tolerates larger rates.

Five rates, two thirds of a decade apart, come first. Then the bracket is extended until the best is
not at its edge and a run above it has diverged, and refined until the neighbours of the best are
within a factor of 1.25. Expected: an optimum from 4e-3 to 1e-2, known to a factor of about 1.3 from
the losses at the first rung; few are done, so at the end its interval may stay unknown. Nothing
diverges far below 1: the bracket goes up to there.
Budget: 12 to 15 rates of 1.6 M tokens, a quarter to a third of that in all; on two cores half an
hour.
"""

from lmray.config import override
from lmray.presets import tiny
from lmray.sweeps.search import Bracket
from lmray.sweeps.space import Asha

BASE = override(tiny(), {"budget.tokens": 1_572_864, "evaluation.interval_tokens": 65_536})
SPACE = {"optim.lr": [1e-4, 4.6e-4, 2.2e-3, 1e-2, 4.6e-2]}
SEARCH = Bracket("optim.lr", ratio=1.25)
SEEDS = [0]
# One in four goes on, and may be let past after those that came later: see docs/asha.md.
ASHA = Asha(grace_tokens=196_608, reduction_factor=4, mode="promote")
