"""AdamW from scratch."""

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmray.native import tensors
from lmray.training.native import kernels
from lmray.training.optimizers.foreach import ForeachOptimizer, refuse_outside


class AdamW(ForeachOptimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    In step t, with torch.optim.AdamW's order of operations:
    m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    w = w - lr weight_decay w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).
    A CPU's fp32 weights take it in one pass over memory, with roots that are correctly rounded.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        """Raises UsageError for a hyperparameter outside its range."""
        refuse_outside(
            ("lr", lr, lr >= 0, "must not be negative"),
            ("betas", betas, all(0 <= beta < 1 for beta in betas), "must be in [0, 1)"),
            ("eps", eps, eps >= 0, "must not be negative"),
            ("weight_decay", weight_decay, weight_decay >= 0, "must not be negative"),
        )
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    def update(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        grads: list[Tensor],
        states: list[dict[str, Any]],
    ) -> None:
        """One step for a group."""
        for weight, state in zip(weights, states, strict=True):
            if "step" not in state:
                state["step"] = 0
                state["exp_avg"] = torch.zeros_like(weight)
                state["exp_avg_sq"] = torch.zeros_like(weight)
            state["step"] += 1
        means = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        steps = [state["step"] for state in states]

        kept = [*weights, *means, *squares]
        if tensors.usable(*kept, *grads) and all(map(Tensor.is_contiguous, kept)):
            _by_kernel(group, [weights, [g.contiguous() for g in grads], means, squares], steps)
            return
        lr, (beta1, beta2) = group["lr"], group["betas"]
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, [(1 - beta2**step) ** 0.5 for step in steps])
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_addcdiv_(weights, means, roots, [-lr / (1 - beta1**step) for step in steps])


def _by_kernel(group: dict[str, Any], lists: list[list[Tensor]], steps: list[int]) -> None:
    """`lists` are weights, gradients, means and squares; all contiguous."""
    lr, (beta1, beta2) = group["lr"], group["betas"]
    begins = list(accumulate((weight.numel() for weight in lists[0]), initial=0))
    rows = zip(*(tensors.addresses(*column) for column in lists), begins, strict=False)
    table = np.array([*rows, (0, 0, 0, 0, begins[-1])])
    factors = np.array(
        [(lr / (1 - beta1**step), (1 - beta2**step) ** 0.5) for step in steps], np.float32
    )
    kept = 1 - lr * group["weight_decay"]
    update = kernels().update
    tensors.in_parts(
        lambda *part: update(table, factors, kept, beta1, beta2, group["eps"], *part),
        begins[-1],
        numbers=1,
    )
