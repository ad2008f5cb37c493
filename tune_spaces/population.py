"""Which learning rate suits each part of a training, if a population finds out as it goes?

Hypothesis: a rate that is good at the beginning is too large towards the end. Members whose rates
are right for where they are take over the others' places, so along the best lineage the rate
falls, as a schedule's does, without one having been chosen; and its loss is below that of the best
of the same rates held constant to the end.

Eight members train side by side, an eighth of the budget at a time; then the two worst go on from
the state of one of the two best, with its rate and weight decay multiplied or divided by 1.25
(Jaderberg et al. 2017). The rate is constant within a generation: there is no decay but the
population's own. Set the result against a tuned decay (learning_rate) before using it: eight
members cost what eight runs do.

Expected: the best lineage ends below the rate at which it began, a few times 1e-3.
Budget: 64 trials of 98,304 tokens, 6.3 M in all; on two cores half an hour.
"""

from lmray.config import override
from lmray.presets import tiny
from lmray.sweeps.axes import LogUniform
from lmray.sweeps.search import Population
from lmray.sweeps.space import TO_THE_END

BASE = override(
    tiny(),
    {
        "optim.schedule": "constant",
        "budget.tokens": 786_432,
        "evaluation.interval_tokens": 32_768,
    },
)
SPACE = {"optim.lr": LogUniform(3e-4, 3e-2), "optim.weight_decay": LogUniform(1e-2, 1.0)}
SEARCH = Population(members=8, generations=8)
SEEDS = [0]
ASHA = TO_THE_END
