"""Muon and NorMuon: matrices moved along the orthogonal part of their momentum.

Letters of shapes: N matrices of one shape, R rows, C columns.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lmray.errors import UsageError
from lmray.training.optimizers.foreach import ForeachOptimizer, refuse_outside

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Jordan's coefficients: the steepest at zero that keep singular values within about 0.7 to 1.2."""

_ITERATIONS = 5
_EPS = 1e-7


class Muon(ForeachOptimizer):
    """Momentum orthogonalised by Newton-Schulz (Jordan 2024, kellerjordan.github.io/posts/muon).

    m = momentum m + (1 - momentum) g; u = orthogonal(momentum m + (1 - momentum) g), Nesterov's
    look ahead; w = w - lr weight_decay w - lr sqrt(max(1, R / C)) u. The root keeps the root mean
    square of what tall and wide matrices add to their outputs alike.

    With `normalised` it is NorMuon (Li et al. 2025, arXiv:2510.05491): each row of u is divided by
    the root of v = beta2 v + (1 - beta2) mean(u^2 of the row), and u scaled back to its norm.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        *,
        normalised: bool = False,
        beta2: float = 0.95,
    ) -> None:
        """Raises UsageError for a hyperparameter outside its range and for what is no matrix."""
        refuse_outside(
            ("lr", lr, lr >= 0, "must not be negative"),
            ("momentum", momentum, 0 <= momentum < 1, "must be in [0, 1)"),
            ("weight_decay", weight_decay, weight_decay >= 0, "must not be negative"),
            ("beta2", beta2, 0 <= beta2 < 1, "must be in [0, 1)"),
        )
        settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, settings | {"normalised": normalised, "beta2": beta2})
        for group in self.param_groups:
            for param in group["params"]:
                if param.ndim != 2:
                    raise UsageError(
                        f"Muon was given a parameter of shape {tuple(param.shape)} and moves "
                        f"matrices; give that one to AdamW"
                    )

    def update(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        grads: list[Tensor],
        states: list[dict[str, Any]],
    ) -> None:
        """One step for a group: the matrices of one shape are orthogonalised in one batch."""
        for weight, state in zip(weights, states, strict=True):
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(weight)
            if group["normalised"] and "row_square" not in state:
                state["row_square"] = torch.zeros_like(weight[:, :1])
        lr, momentum = group["lr"], group["momentum"]
        means = [state["momentum"] for state in states]
        torch._foreach_lerp_(means, grads, 1 - momentum)
        ahead = torch._foreach_lerp(grads, means, momentum)
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        shapes = defaultdict(list)
        for index, weight in enumerate(weights):
            shapes[weight.shape].append(index)
        for (rows, columns), indices in shapes.items():
            steps = orthogonalised(torch.stack([ahead[i] for i in indices]))
            if group["normalised"]:
                squares = torch.stack([states[i]["row_square"] for i in indices])
                steps = _normalise_rows(steps, squares, group["beta2"])
                for i, square in zip(indices, squares, strict=True):
                    states[i]["row_square"].copy_(square)
            scale = max(1.0, rows / columns) ** 0.5
            moved = [weights[i] for i in indices]
            torch._foreach_add_(moved, list(steps.to(moved[0].dtype)), alpha=-lr * scale)


def orthogonalised(
    matrices: Float[Tensor, "N R C"], dtype: torch.dtype | None = None
) -> Float[Tensor, "N R C"]:
    """About U V^T of each matrix U S V^T: singular values between 0.7 and 1.2 instead of one.

    Five steps of Newton-Schulz's x <- a x + (b x x^T + c (x x^T)^2) x. They are taken in bf16 on a
    GPU, which is precise enough, and in the matrices' dtype on a CPU, unless `dtype` says it.
    """
    a, b, c = _QUINTIC
    chosen = dtype or (torch.bfloat16 if matrices.is_cuda else matrices.dtype)
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(chosen)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=_EPS)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _normalise_rows(
    steps: Float[Tensor, "N R C"], squares: Float[Tensor, "N R 1"], beta2: float
) -> Float[Tensor, "N R C"]:
    """NorMuon's steps; `squares` is updated in place."""
    steps = steps.to(squares.dtype)
    squares.lerp_(steps.square().mean(-1, keepdim=True), 1 - beta2)
    even = steps * (squares + 1e-10).rsqrt()
    before, after = (x.norm(dim=(-2, -1), keepdim=True) for x in (steps, even))
    return even * (before / after.clamp(min=_EPS))
