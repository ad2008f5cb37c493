"""What is each choice of the architecture worth at the learning rate that suits it?

Hypothesis: part of what `ablations` finds is the rate and not the switch: post-norm, and no norm
above all, come nearer to the baseline at a lower rate, and Muon's lead shrinks least. Each variant
is tried at a ladder of rates, and its best is compared with the baseline's best.

Expected: the order of `ablations`, with smaller differences.
Budget: 1.6 M tokens a trial, half of the trials stopped at each rung; on two cores a few hours.
"""

import runpy
from pathlib import Path

from lmray.sweeps.space import Asha

_ablations = runpy.run_path(str(Path(__file__).with_name("ablations.py")))
BASE = _ablations["BASE"]
SPACE = {
    "variant": _ablations["VARIANTS"],
    "optim.lr": [BASE.optim.lr * x for x in (0.1, 0.3, 1, 3)],
}
BASELINE = _ablations["BASELINE"]
SEEDS = [0, 1, 2]
ASHA = Asha(grace_tokens=393_216, reduction_factor=2)
