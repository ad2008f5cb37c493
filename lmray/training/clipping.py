"""Gradient clipping by the global norm."""

import math
from collections.abc import Iterable
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

_EPS = 1e-6
"""Keeps the quotient finite where all gradients are zero, as in the coursework and in torch."""


@torch.no_grad()
def clip_gradient_norm(parameters: Iterable[Tensor], max_l2_norm: float) -> Float[Tensor, ""]:
    """Scales the gradients in place to a joint L2 norm of at most `max_l2_norm`.

    With a limit of infinity they stay as they are. Returns the norm before, on the gradients'
    device, so that nothing waits for it; where it is not finite the scaled gradients are not
    either. Parameters without a gradient are passed over. The norm is in fp32 (fp64 for fp64).
    (Pascanu, Mikolov & Bengio 2013.)
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not grads:
        return torch.zeros(())
    dtypes = {grad.dtype for grad in grads}
    precise = reduce(torch.promote_types, dtypes, torch.float32)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads, 2, precise)))
    if max_l2_norm < math.inf:
        factor = (max_l2_norm / (norm + _EPS)).clamp(max=1.0)
        for dtype in dtypes:  # a GPU multiplies a list by a factor of its own type alone
            torch._foreach_mul_([g for g in grads if g.dtype == dtype], factor.to(dtype))
    return norm
