"""How far below the edge of stability is the best learning rate?

Hypothesis: without clipping, training with AdamW is stable up to a rate some tens of times the
best one. Where it is stable it flattens the loss until the preconditioned sharpness is about what
the rate can bear, (2 + 2 beta1) / ((1 - beta1) lr) = 38 / lr (Cohen et al. 2022), and beyond the
edge the first steps are thrown out before it can. So the best rate is no rate at the edge: it is
lost to noise long before, and best / edge is a few hundredths, nearly the same for all seeds.

Clipping is off, for it hides what diverges; the rate is constant after its warm-up, so that the
limit stands still. A rate is stable if its run reaches the end, and each seed has an edge of its
own. All checkpoints are kept:
`lmray sharpness RUN` measures a trial's sharpness at each, and `lmray sweep report
edge_of_stability` then draws it beside its limit.

Expected: an edge from 0.3 to 1, the best from 3e-3 to 1e-2.
Budget: about twelve rates with three seeds each, 0.4 M tokens a trial; on two cores half an hour.
"""

from lmray.config import override
from lmray.presets import tiny
from lmray.sweeps.search import Bisect
from lmray.sweeps.space import TO_THE_END

BASE = override(
    tiny(),
    {
        "optim.clip_norm": "none",
        "optim.schedule": "constant",
        "budget.tokens": 393_216,
        "evaluation.interval_tokens": 65_536,
        "execution.checkpoint_interval_steps": 32,
        "execution.keep_checkpoints": 6,
    },
)
SPACE = {"optim.lr": [1e-3, 3.2e-3, 1e-2, 3.2e-2, 1e-1, 3.2e-1]}
SEARCH = Bisect("optim.lr", ratio=1.1)
SEEDS = [0, 1, 2]
ASHA = TO_THE_END
