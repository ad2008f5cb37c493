"""Cross-entropy of low-precision logits, in fp32 a part at a time.

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
    """The mean of lmray.model.cross_entropy.

    fp32 logits go there. Of others no fp32 copy is ever whole: the rows' log-sum-exps are kept, and
    the gradient is made from them in the logits' own precision.
    """
    if logits.dtype in (torch.float32, torch.float64):
        return cross_entropy(logits, targets)
    flat = logits.reshape(-1, logits.shape[-1])
    return _ChunkedCrossEntropy.apply(flat, targets.reshape(-1), _CHUNK).mean()


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
            softmax = part.float().sub_(total.unsqueeze(-1)).exp_().mul_(scale.unsqueeze(-1))
            into.copy_(softmax.scatter_add_(-1, target.unsqueeze(-1), -scale.unsqueeze(-1)))
        return grad, None, None
