"""The arithmetic of a training: what optim.precision stands for."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import nn

from lmray.accounting import DType

Precision = Literal["fp32", "tf32", "bf16", "bf16_weights"]


def product_dtype(precision: Precision) -> DType:
    """What the factors of matrix products are rounded to."""
    return "bf16" if precision == "bf16_weights" else precision


def prepare(model: nn.Module, precision: Precision) -> None:
    """Sets how this process multiplies fp32 matrices, and rounds the weights where asked to."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    if precision == "bf16_weights":
        # Parameters only: the table of rotations is worth its fp32.
        for parameter in model.parameters():
            parameter.data = parameter.data.bfloat16()


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager:
    """The context of forward passes: matrix products in bf16, norms and losses in fp32."""
    if precision in ("bf16", "bf16_weights"):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
