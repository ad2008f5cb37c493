"""Which learning rate suits a small model that sees four hundred thousand tokens?

Hypothesis: between rates that are too slow and rates that diverge lies a best one, a few times
1e-3; two minutes on two cores are enough to see it.
"""

from lmray.config import override
from lmray.presets import tiny
from lmray.sweeps.space import Asha

BASE = override(tiny(), {"budget.tokens": 393_216, "evaluation.interval_tokens": 32_768})
SPACE = {"optim.lr": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2]}
SEEDS = [0]
ASHA = Asha(grace_tokens=98_304, reduction_factor=2)
