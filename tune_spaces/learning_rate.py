"""Which peak learning rate gives the lowest validation loss at equal tokens?

Hypothesis: loss against the logarithm of the learning rate is a bowl. Below the optimum training
is merely slow; above it the loss rises steeply until runs diverge; the best rate lies within a
factor of a few of that edge (for models of 17 to 36 M parameters the coursework's write-ups found
2e-3 to 5e-3, diverging from 5e-3 to 7e-3 on). A smaller model tolerates larger rates.
"""

from lmray.config import override
from lmray.presets import tiny
from lmray.sweeps.space import Asha

BASE = override(tiny(), {"budget.tokens": 1_572_864, "evaluation.interval_tokens": 65_536})
SPACE = {"optim.lr": [1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3e-2, 1e-1]}
SEEDS = [0]
# Half go on at each rung: near the optimum the order still changes after the first one.
ASHA = Asha(grace_tokens=196_608, reduction_factor=2)
