"""What does the batch size cost or gain at equal tokens, and how must the learning rate follow it?

Hypothesis: at equal tokens small batches take more steps and reach a lower loss, up to a critical
size beyond which every doubling costs loss; below it the best learning rate grows as the square
root of the batch (Malladi et al. 2022, for Adam), so a rate fixed at one batch is too high for
smaller and too low for larger ones. Throughput grows with the batch until the device is full,
memory without end.

Lines: the base's rate at every batch (fixed), its square-root scaling (sqrt), and the best of a
bracket around that (tuned), which is extended and refined for each batch by itself. Expected: tuned
and sqrt lie within the seeds' noise of one another from 4 to 64, fixed is worse at both ends, and
all rise from 64 to 256, where few steps are left.
Budget: 1.6 M tokens a trial, all of them to the end; on two cores about three hours.
"""

from lmray.config import override
from lmray.presets import tiny
from lmray.sweeps.axes import Variants, When
from lmray.sweeps.search import Bracket
from lmray.sweeps.space import TO_THE_END

BATCHES = [1, 4, 16, 64, 256]
BASE = override(tiny(), {"budget.tokens": 1_572_864, "evaluation.interval_tokens": 196_608})


def sqrt_rule(batch: int) -> float:
    """The base's rate, scaled by the square root of the batch."""
    return BASE.optim.lr * (batch / BASE.data.batch_size) ** 0.5


SPACE = {
    "data.batch_size": BATCHES,
    "rate": Variants({"fixed": {}, "sqrt": {}, "tuned": {}}),
    "optim.lr": [
        *(When({"data.batch_size": b, "rate": "sqrt"}, [sqrt_rule(b)]) for b in BATCHES),
        *(
            When({"data.batch_size": b, "rate": "tuned"}, [sqrt_rule(b) * x for x in (0.5, 1, 2)])
            for b in BATCHES
        ),
    ],
}
SEARCH = Bracket("optim.lr", ratio=1.5, trials=8, to_divergence=False)
SEEDS = [0, 1, 2]
ASHA = TO_THE_END
