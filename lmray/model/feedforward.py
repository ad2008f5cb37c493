"""The feed-forward layers: SwiGLU, and two matrices around one of three functions.

Letters of shapes: D d_model.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lmray.model.layers import Linear
from lmray.model.native import kernels
from lmray.native import tensors


def silu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The sigmoid linear unit, x * sigmoid(x) (Elfwing et al. 2017)."""
    return functional.silu(x)


def gelu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The Gaussian error linear unit, x times the normal distribution's mass below x.

    (Hendrycks & Gimpel 2016; exact, not its approximation by tanh.)
    """
    return functional.gelu(x)


def relu2(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """max(0, x)^2 (Primer, So et al. 2021)."""
    return torch.relu(x).square()


def gated_silu(gate: Float[Tensor, "..."], value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """silu(gate) * value; keeps these two for the backward pass, not silu(gate)."""
    return _GatedSilu.apply(gate, value)


class _GatedSilu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gate: Float[Tensor, "..."], value: Float[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        ctx.save_for_backward(gate, value)
        if gate.shape == value.shape and tensors.usable(gate, value):
            gate, value = gate.contiguous(), value.contiguous()
            out = torch.empty_like(gate)
            given, kernel = tensors.addresses(gate, value, out), kernels().gate
            tensors.in_parts(lambda *part: kernel(*given, *part), gate.numel(), numbers=1)
            return out
        return functional.silu(gate) * value

    @staticmethod
    # pyrefly: ignore[bad-override]
    def backward(ctx: Any, *grad_outputs: Float[Tensor, "..."]) -> tuple[Tensor, Tensor]:
        (grad,) = grad_outputs
        gate, value = ctx.saved_tensors
        if torch.is_grad_enabled():  # it is to be differentiated once more
            sigmoid = gate.sigmoid()
            slope = sigmoid * (1 + gate * (1 - sigmoid))
            return grad * value * slope, grad * gate * sigmoid
        if gate.shape == value.shape and tensors.usable(grad, gate, value):
            grad, gate, value = grad.contiguous(), gate.contiguous(), value.contiguous()
            grads = torch.empty_like(gate), torch.empty_like(gate)
            given = tensors.addresses(grad, gate, value, *grads)
            kernel = kernels().gate_backward
            tensors.in_parts(lambda *part: kernel(*given, *part), gate.numel(), numbers=1)
            return grads
        return torch.ops.aten.silu_backward(grad * value, gate), grad * functional.silu(gate)


class SwiGLU(nn.Module):
    """w2(silu(w1 x) * w3 x), the gated feed-forward layer of Shazeer (2020)."""

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Makes three matrices between d_model and d_ff."""
        super().__init__()
        self.w1 = Linear(d_model, d_ff, device, dtype)
        self.w2 = Linear(d_ff, d_model, device, dtype)
        self.w3 = Linear(d_model, d_ff, device, dtype)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Applies the layer to each position by itself."""
        return self.w2(gated_silu(self.w1(x), self.w3(x)))


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": silu, "gelu": gelu, "relu2": relu2}


class FeedForward(nn.Module):
    """w2(activation(w1 x)): the feed-forward layer without a gate."""

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        activation: Literal["silu", "gelu", "relu2"],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Makes two matrices between d_model and d_ff."""
        super().__init__()
        self.activation = _ACTIVATIONS[activation]
        self.w1 = Linear(d_model, d_ff, device, dtype)
        self.w2 = Linear(d_ff, d_model, device, dtype)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Applies the layer to each position by itself."""
        return self.w2(self.activation(self.w1(x)))
