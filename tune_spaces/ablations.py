"""What is each choice of the architecture worth?

Hypothesis: normalisation is what training at a high rate rests on: without it the base's rate
diverges and a lower one, the ladder says which, costs a few hundredths; where it stands matters
less at four layers. Positions are worth a tenth or so, as a causal model can count without being
told (NoPE, Haviv et al. 2022) but not well. SwiGLU is worth one or two hundredths over a SiLU FFN
of as many parameters (Shazeer 2020). Of the modern switches Muon gains most; the others are within
the noise at this size.

Every variant differs from the baseline in the one switch it names; the report shows it, found by
comparing the configurations. Rates are the baseline's: `ablations_tuned` re-tunes them.
Expected: Muon ahead of the baseline, NoPE and no norm behind it by more than the seeds' noise.
Budget: 1.6 M tokens a trial, all to the end; on two cores under an hour and a half.
"""

from lmray.config import override
from lmray.presets import tiny
from lmray.sweeps.axes import Variants, When
from lmray.sweeps.space import TO_THE_END

BASE = override(tiny(), {"budget.tokens": 1_572_864, "evaluation.interval_tokens": 196_608})
VARIANTS = Variants(
    {
        "baseline": {},
        "no norm": {"model.norm": "none"},
        "post-norm": {"model.norm": "post"},
        "res-post-norm": {"model.norm": "res_post"},
        "NoPE": {"model.position": "none"},
        # An FFN of automatic width has SwiGLU's parameters.
        "SiLU": {"model.ffn": "silu"},
        "relu2": {"model.ffn": "relu2"},
        "qk-norm": {"model.qk_norm": True},
        "tied": {"model.tied_embeddings": True},
        "Muon": {"optim.name": "muon"},
    }
)
SPACE = {
    "variant": VARIANTS,
    "optim.lr": [When({"variant": "no norm"}, [BASE.optim.lr / x for x in (1, 3, 10, 30)])],
}
BASELINE = {"variant": "baseline"}
SEEDS = [0, 1, 2]
ASHA = TO_THE_END
