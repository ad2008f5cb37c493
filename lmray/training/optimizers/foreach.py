"""What the optimizers share: one update over the whole list of a group's parameters at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lmray.errors import UsageError


class ForeachOptimizer(Optimizer):
    """An optimizer whose step is a few calls on lists of tensors, however many parameters.

    A parameter of less than 32 bits is updated as an fp32 copy, kept in its state as "master", and
    rounded from there: an update smaller than half its last bit would otherwise be lost.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient.

        A `closure` is called first, to compute the gradients; what it returns is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._step_group(group, params)
        return loss

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for param in params:
            if _is_low(param) and "master" not in self.state[param]:
                self.state[param]["master"] = param.float()
        states = [self.state[param] for param in params]
        weights = [state.get("master", param) for state, param in zip(states, params, strict=True)]
        grads = [param.grad for param in params if param.grad is not None]
        precise = [grad.to(weight.dtype) for grad, weight in zip(grads, weights, strict=True)]
        self.update(group, weights, precise, states)
        rounded = [i for i, param in enumerate(params) if _is_low(param)]
        if rounded:
            torch._foreach_copy_([params[i] for i in rounded], [weights[i] for i in rounded])

    def update(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        grads: list[Tensor],
        states: list[dict[str, Any]],
    ) -> None:
        """One step for a group: changes `weights` and `states` in place, and leaves `grads`."""
        raise NotImplementedError


def _is_low(param: Tensor) -> bool:
    return param.dtype in (torch.bfloat16, torch.float16)


def refuse_outside(*rules: tuple[str, Any, bool, str]) -> None:
    """Raises UsageError for the first (name, value, allowed, rule) that is not allowed."""
    for name, value, allowed, rule in rules:
        if not allowed:
            raise UsageError(f"{name}={value} {rule}; choose another {name}")
