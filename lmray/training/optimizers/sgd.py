"""Stochastic gradient descent with momentum."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lmray.training.optimizers.foreach import ForeachOptimizer, refuse_outside


class SGD(ForeachOptimizer):
    """m = momentum m + g; w = w - lr weight_decay w - lr m (Polyak 1964; decay decoupled)."""

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        """Raises UsageError for a hyperparameter outside its range."""
        refuse_outside(
            ("lr", lr, lr >= 0, "must not be negative"),
            ("momentum", momentum, 0 <= momentum < 1, "must be in [0, 1)"),
            ("weight_decay", weight_decay, weight_decay >= 0, "must not be negative"),
        )
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def update(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        grads: list[Tensor],
        states: list[dict[str, Any]],
    ) -> None:
        """One step for a group; without momentum there is no state."""
        steps = grads
        if group["momentum"] > 0:
            for weight, state in zip(weights, states, strict=True):
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
            steps = [state["momentum"] for state in states]
            torch._foreach_mul_(steps, group["momentum"])
            torch._foreach_add_(steps, grads)
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(weights, steps, alpha=-group["lr"])
