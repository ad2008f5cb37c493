"""What every step of an optimizer makes anew."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lmray.training.optimizers import SGD, AdamW, Muon

OPTIMIZERS = {
    "adamw": AdamW,
    "sgd": lambda weights: SGD(weights, momentum=0.9),
    "muon": Muon,
    "normuon": lambda weights: Muon(weights, normalised=True),
}


class Calls(TorchDispatchMode):
    """How often each of torch's operations is called."""

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_state_is_made_in_the_first_step_alone(make, dtype):
    """Of a bf16 weight only the gradient is copied to fp32 in each."""
    weights = [nn.Parameter(torch.randn(size, 8, dtype=dtype)) for size in (4, 5, 6)]
    optimizer = make(weights)
    made = []
    for _ in range(2):
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        with Calls() as calls:
            optimizer.step()
        made.append((calls.count["zeros_like"], calls.count["_to_copy"]))
    copies = len(weights) if dtype == torch.bfloat16 else 0
    zeros = made[0][0]
    assert zeros >= len(weights)
    assert made == [(zeros, 2 * copies), (0, copies)]
