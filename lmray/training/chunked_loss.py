"""Cross-entropy a part at a time, where lmray.model's has no kernel for it.

Letters of shapes: N targets, V vocabulary size.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from lmray.model import cross_entropy

_CHUNK = 1 << 24
"""Logits in fp32 at once: 64 MiB."""


def mean_cross_entropy(
    logits: Float[Tensor, "*batch V"], targets: Int[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """The mean of `token_losses`."""
    return token_losses(logits, targets).mean()


def token_losses(
    logits: Float[Tensor, "*batch V"], targets: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Each target's lmray.model.cross_entropy, in fp32.

    A CPU's fp32 logits and fp64 ones go there. Of others nothing in fp32 is ever as large as the
    logits but, where these are fp32, the gradient: the rows' log-sum-exps are kept, and it is made
    from them in the logits' own precision.
    """
    if logits.dtype == torch.float64 or (logits.dtype == torch.float32 and not logits.is_cuda):
        return cross_entropy(logits, targets, reduction="none")
    flat = logits.reshape(-1, logits.shape[-1])
    losses = _ChunkedCrossEntropy.apply(flat, targets.reshape(-1), _CHUNK)
    return losses.view(targets.shape)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"], chunk: int
    ) -> Float[Tensor, " N"]:
        rows = max(1, chunk // logits.shape[-1])
        totals = torch.cat([part.float().logsumexp(-1) for part in logits.split(rows)])
        ctx.save_for_backward(logits, targets, totals)
        ctx.rows = rows
        return totals - logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1).float()

    @staticmethod
    @once_differentiable  # its type drops the name of ctx
    # pyrefly: ignore[bad-override]
    def backward(ctx: Any, *grad_outputs: Float[Tensor, " N"]) -> tuple[Tensor, None, None]:
        logits, targets, totals = ctx.saved_tensors
        grad = torch.empty_like(logits)
        pieces = (tensor.split(ctx.rows) for tensor in (grad, logits, targets, totals))
        for into, part, target, total, scale in zip(
            *pieces, grad_outputs[0].split(ctx.rows), strict=True
        ):
            softmax = (part - total.unsqueeze(-1)).exp_().mul_(scale.unsqueeze(-1))
            into.copy_(softmax.scatter_add_(-1, target.unsqueeze(-1), -scale.unsqueeze(-1)))
        return grad, None, None
