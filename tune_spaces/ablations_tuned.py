"""What is each choice of the architecture worth at the learning rate that suits it?

Hypothesis: part of what `ablations` finds is the rate and not the switch: post-norm, and no norm
above all, come nearer to the baseline at a lower rate, and Muon's lead shrinks least. The rate is
bracketed for each variant by itself: three around the base's, further out while the best is at the
edge, then between until the best has neighbours within a factor of 1.8. All are trained to their
end, for early stopping would compare the variants and leave the worse ones without an answer.

Expected: the order of `ablations`, with smaller differences.
Budget: five or six rates a variant, about 150 trials of 1.6 M tokens (the price says at most 240);
on two cores six hours.
"""

import runpy
from pathlib import Path

from lmray.sweeps.search import Bracket
from lmray.sweeps.space import TO_THE_END

_ablations = runpy.run_path(str(Path(__file__).with_name("ablations.py")))
BASE = _ablations["BASE"]
SPACE = {
    "variant": _ablations["VARIANTS"],
    "optim.lr": [BASE.optim.lr * x for x in (0.316, 1, 3.16)],
}
SEARCH = Bracket("optim.lr", ratio=1.8, trials=8, to_divergence=False)
BASELINE = _ablations["BASELINE"]
SEEDS = [0, 1, 2]
ASHA = TO_THE_END
