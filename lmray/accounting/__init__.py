"""What a model costs, from its configuration alone: parameters, FLOPs, memory, time, money."""

from lmray.accounting.devices import DType, Estimate, estimate, mfu, peak_flops
from lmray.accounting.flops import (
    forward_flops,
    optimizer_flops,
    six_n_d,
    step_flops,
    training_flops,
)
from lmray.accounting.gpt2 import (
    SHAPES,
    TRAINING_BATCH,
    TRAINING_STEPS,
    Variant,
    gpt2_model,
    gpt2_run,
    variants,
)
from lmray.accounting.memory import Memory, training_memory
from lmray.accounting.parameters import num_parameters, over_swiglu, parameters

__all__ = [
    "SHAPES",
    "TRAINING_BATCH",
    "TRAINING_STEPS",
    "DType",
    "Estimate",
    "Memory",
    "Variant",
    "estimate",
    "forward_flops",
    "gpt2_model",
    "gpt2_run",
    "mfu",
    "num_parameters",
    "optimizer_flops",
    "over_swiglu",
    "parameters",
    "peak_flops",
    "six_n_d",
    "step_flops",
    "training_flops",
    "training_memory",
    "variants",
]
