"""Cross-entropy of next-token predictions.

Letters of shapes: V vocabulary size, *batch any dimensions before it.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


def cross_entropy(
    logits: Float[Tensor, "*batch V"],
    targets: Int[Tensor, "*batch"],
    reduction: Literal["mean", "none"] = "mean",
) -> Float[Tensor, "..."]:
    """-log softmax(logits)[target] in nats: the mean over all targets, or with "none" each one's.

    Computed in fp32 (fp64 for fp64 logits) as logsumexp(logits) - logits[target] with the maximum
    taken out of both: finite and exact for logits of any size.
    """
    losses = _CrossEntropy.apply(
        logits.to(torch.promote_types(logits.dtype, torch.float32)), targets
    )
    return losses.mean() if reduction == "mean" else losses


class _CrossEntropy(torch.autograd.Function):
    """Keeps one tensor of the logits' size for the backward pass, exp(logits - max).

    There it makes one more, the gradient, where autograd on the same formula would make three; at
    V = 32,000 they are the largest tensors of a step.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Float[Tensor, "*batch V"], targets: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "..."]:
        targets = targets.unsqueeze(-1)
        maximum = logits.amax(-1, keepdim=True)
        exponentials = (logits - maximum).exp_()
        total = exponentials.sum(-1, keepdim=True)
        ctx.save_for_backward(exponentials, total, targets)
        return (total.log() + (maximum - logits.gather(-1, targets))).squeeze(-1)

    @staticmethod
    @once_differentiable  # its type drops the name of ctx
    # pyrefly: ignore[bad-override]
    def backward(ctx: Any, *grad_outputs: Float[Tensor, "..."]) -> tuple[Tensor, None]:
        # d loss / d logits = softmax(logits) - onehot(target)
        exponentials, total, targets = ctx.saved_tensors
        grad = grad_outputs[0].unsqueeze(-1)
        return (exponentials * (grad / total)).scatter_add_(-1, targets, -grad), None
