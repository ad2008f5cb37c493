"""How low a loss on OpenWebText can a GPU reach in an hour and a half?

Hypothesis: within a deadline the number of tokens seen decides, so bf16 and a batch that fills the
GPU come first, then the optimizer: Muon reaches AdamW's loss in two thirds of its steps, and so
ends lower. The schedule ends with the budget, whatever the speed, and the final evaluation of the
whole validation split, at context 512, lies inside it.

Expected on an H100 (the coursework's board, 90 minutes, vocabulary 32,000): 3.3 to 3.5 nats/token
for AdamW, 3.1 to 3.3 for Muon. A slower GPU lands higher; compare runs of one machine only.
`lmray board` ranks all finished runs beneath the root and says which lie inside what is expected.
Budget: six trials of 90 minutes.
"""

from lmray.config import override
from lmray.presets import base_owt
from lmray.sweeps.axes import Variants
from lmray.sweeps.space import TO_THE_END

BASE = override(
    base_owt(),
    {
        "model.context_length": 512,
        "optim.precision": "bf16",
        "budget.seconds": 5400.0,
        # Out of reach: the seconds end a run.
        "budget.tokens": 10_485_760_000,
        "evaluation.interval_tokens": 52_428_800,
    },
)
SPACE = {
    "variant": Variants({"AdamW": {}, "Muon": {"optim.name": "muon"}}),
    "optim.lr": [1e-3, 3e-3, 6e-3],
}
BASELINE = {"variant": "AdamW", "optim.lr": 3e-3}
SEEDS = [0]
ASHA = TO_THE_END
