"""Cross-entropy of next-token predictions.

Letters of shapes: V vocabulary size, *batch any dimensions before it.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from lmray.errors import UsageError
from lmray.model.native import kernels
from lmray.native import tensors


def cross_entropy(
    logits: Float[Tensor, "*batch V"],
    targets: Int[Tensor, "*batch"],
    reduction: Literal["mean", "none"] = "mean",
) -> Float[Tensor, "..."]:
    """-log softmax(logits)[target] in nats: the mean over all targets, or with "none" each one's.

    Computed in fp32 (fp64 for fp64 logits) as logsumexp(logits) - logits[target] with the maximum
    taken out of both: finite and exact for logits of any size.

    Raises UsageError for targets of another shape, and what torch's gather raises for an id outside
    the vocabulary.
    """
    if targets.shape != logits.shape[:-1]:
        raise UsageError(
            f"targets of shape {tuple(targets.shape)} are not one for each of the logits of shape "
            f"{tuple(logits.shape)}; give them the shape {tuple(logits.shape[:-1])}"
        )
    losses = _CrossEntropy.apply(
        logits.to(torch.promote_types(logits.dtype, torch.float32)), targets
    )
    return losses.mean() if reduction == "mean" else losses


class _CrossEntropy(torch.autograd.Function):
    """Keeps one tensor of the logits' size for the backward pass: exp(logits - max), or the logits.

    There it makes one more, the gradient, where autograd on the same formula would make three; at
    V = 32,000 they are the largest tensors of a step.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Float[Tensor, "*batch V"], targets: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "..."]:
        if tensors.usable(logits) and _are_ids(targets, logits.shape[-1]):
            return _forward_by_kernel(ctx, logits.contiguous(), targets)
        targets = targets.unsqueeze(-1)
        maximum = logits.amax(-1, keepdim=True)
        exponentials = (logits - maximum).exp_()
        total = exponentials.sum(-1, keepdim=True)
        ctx.save_for_backward(exponentials, total, targets)
        ctx.by_kernel = False
        return (total.log() + (maximum - logits.gather(-1, targets))).squeeze(-1)

    @staticmethod
    @once_differentiable  # its type drops the name of ctx
    # pyrefly: ignore[bad-override]
    def backward(ctx: Any, *grad_outputs: Float[Tensor, "..."]) -> tuple[Tensor, None]:
        # d loss / d logits = softmax(logits) - onehot(target)
        if ctx.by_kernel:
            return _backward_by_kernel(ctx, grad_outputs[0]), None
        exponentials, total, targets = ctx.saved_tensors
        grad = grad_outputs[0].unsqueeze(-1)
        return (exponentials * (grad / total)).scatter_add_(-1, targets, -grad), None


def _are_ids(targets: Tensor, vocab_size: int) -> bool:
    """Whether these are places in a row, which a kernel does not ask before it goes there.

    It takes 7 us for 2,048 of them, whose loss takes 26 ms at V = 10,000 (2 threads, 2026-11).
    """
    if targets.dtype != torch.int64 or targets.device.type != "cpu":
        return False
    lowest, highest = targets.aminmax()
    return bool(lowest >= 0 and highest < vocab_size)


def _forward_by_kernel(
    ctx: Any, logits: Float[Tensor, "*batch V"], targets: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    targets, width = targets.contiguous(), logits.shape[-1]
    losses, totals = (logits.new_empty(targets.shape) for _ in range(2))
    given = tensors.addresses(logits, targets, losses, totals)
    cross_entropy = kernels().cross_entropy
    tensors.in_parts(
        lambda *rows: cross_entropy(*given, width, *rows), targets.numel(), numbers=width
    )
    ctx.save_for_backward(logits, totals, targets)
    ctx.by_kernel = True
    return losses


def _backward_by_kernel(ctx: Any, grad: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch V"]:
    logits, totals, targets = ctx.saved_tensors
    grad, width = grad.contiguous(), logits.shape[-1]
    grad_logits = torch.empty_like(logits)
    given = tensors.addresses(grad, logits, targets, totals, grad_logits)
    backward = kernels().cross_entropy_backward
    tensors.in_parts(lambda *rows: backward(*given, width, *rows), targets.numel(), numbers=width)
    return grad_logits
