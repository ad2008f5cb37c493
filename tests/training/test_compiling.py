"""The loss that is compiled for a GPU, on a CPU as well, against the one that is not."""

import pytest
import torch
from torch import Tensor

from lmray.training.compiling import mean_loss, mean_loss_to_compile
from tests.devices import DEVICES, largest_or_peak

ROWS, VOCAB_SIZE = 1024, 8192
FP32_LOGITS = ROWS * VOCAB_SIZE * 4


@pytest.mark.slow
# torch's compiler, about torch itself.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::UserWarning:torch")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("device", DEVICES)
def test_it_is_the_same_and_makes_nothing_in_fp32_of_the_logits(device: str):
    torch.manual_seed(0)
    states = torch.randn(VOCAB_SIZE, 64).to(device, torch.bfloat16)
    head = torch.randn(VOCAB_SIZE, 64).to(device, torch.bfloat16).requires_grad_()
    ids, targets = torch.randint(VOCAB_SIZE, (2, 4, ROWS // 4)).to(device)

    def model(ids: Tensor) -> Tensor:
        return states[ids] @ head.T

    compiled = torch.compile(mean_loss_to_compile(model), dynamic=False)
    values, gradients = [], []
    for loss in (compiled, mean_loss(model)):
        value = loss(ids, targets)
        value.backward()
        values.append(value.item())
        gradients.append(head.grad)
        head.grad = None
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    mine, other = (gradient.double() for gradient in gradients)
    assert (mine - other).norm() < 1e-2 * other.norm()
    # Logits and their gradient are half as large each, in bf16.
    made = largest_or_peak(lambda: compiled(ids, targets).backward(), device)
    assert FP32_LOGITS // 2 <= made < 1.25 * FP32_LOGITS
    assert device == "cuda" or made < FP32_LOGITS
