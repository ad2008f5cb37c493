"""What does the batch size cost or gain at equal tokens, and how must the learning rate follow it?

Hypothesis: at equal tokens small batches take more steps and reach a lower loss, up to a critical
size beyond which every doubling costs loss; below it the best learning rate grows as the square
root of the batch (Malladi et al. 2022, for Adam), so a rate fixed at one batch is too high for
smaller and too low for larger ones. Throughput grows with the batch until the device is full,
memory without end.

Lines: the base's rate at every batch (fixed), its square-root scaling (sqrt), and the best of a
bracket around that (tuned), which is extended and refined for each batch by itself. Batches go up
by fours, as far as the budget leaves a few steps (with budget.steps, all of them) and the memory,
by accounting, one trial. Expected: tuned and sqrt lie within the seeds' noise of one another from 4
to 64, fixed is worse at both ends, and all rise from 64 to 256, where few steps are left.
Budget: 1.6 M tokens a trial, all of them to the end; on two cores about three hours.
"""

from lmray.config import Run, override
from lmray.presets import tiny
from lmray.sweeps.axes import Axes, Variants, When
from lmray.sweeps.constraints import memory_refusal
from lmray.sweeps.search import Bracket
from lmray.sweeps.space import TO_THE_END

BASE = override(tiny(), {"budget.tokens": 1_572_864, "evaluation.interval_tokens": 196_608})
# A trial's part of a laptop. --memory-gb says what your GPU has; with more than that, its runs find
# where memory ends: they compute in parts what does not fit.
MEMORY_GB = 4


def batches(base: Run, memory_gb: float) -> list[int]:
    """1, 4, 16 and so on."""
    steps = 4 if base.budget.steps == "none" else base.budget.steps
    found, batch = [1], 4
    while base.budget.tokens >= steps * batch * base.model.context_length and not memory_refusal(
        override(base, {"data.batch_size": batch}), memory_gb
    ):
        found.append(batch)
        batch *= 4
    return found


def SPACE(base: Run, memory_gb: float) -> Axes:
    """The batches of a base, each with its rates."""
    sizes = batches(base, memory_gb)
    sqrt = {size: base.optim.lr * (size / base.data.batch_size) ** 0.5 for size in sizes}
    tuned = {size: [rate * x for x in (0.5, 1, 2)] for size, rate in sqrt.items()}
    return {
        "data.batch_size": sizes,
        "rate": Variants({"fixed": {}, "sqrt": {}, "tuned": {}}),
        "optim.lr": [
            *(When({"data.batch_size": b, "rate": "sqrt"}, [sqrt[b]]) for b in sizes),
            *(When({"data.batch_size": b, "rate": "tuned"}, tuned[b]) for b in sizes),
        ],
    }


SEARCH = Bracket("optim.lr", ratio=1.5, trials=8, to_divergence=False)
SEEDS = [0, 1, 2]
ASHA = TO_THE_END
