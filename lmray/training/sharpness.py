"""Sharpness: the largest eigenvalue of the Hessian of a loss, and of what Adam makes of it.

Gradient descent with rate lr is stable on a quadratic as long as its sharpness is below 2 / lr, and
training drives it there (Cohen et al. 2021, "Gradient descent on neural networks typically occurs
at the edge of stability"). Adam sees the Hessian through its preconditioner P, diag(sqrt(v) + eps):
there it is the largest eigenvalue of P^-1 H that meets (2 + 2 beta1) / ((1 - beta1) lr), 38 / lr at
beta1 = 0.9 (Cohen et al. 2022, "Adaptive gradient methods at the edge of stability").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Product = Callable[[Float[Tensor, " P"]], Float[Tensor, " P"]]
"""A symmetric matrix, by what it makes of a vector."""

_STEP = 1e-5
"""Relative step of the differences: the cube root of fp64's precision, where both errors meet."""


@dataclass(frozen=True)
class Eigenvalue:
    """The largest eigenvalue of a symmetric matrix, as far as it was found."""

    value: float
    residual: float
    """|A v - value v| for the unit vector v found: an eigenvalue lies within that of `value`."""
    products: int
    """Times the matrix was multiplied with."""


def stability_limit(lr: float, beta1: float) -> float:
    """The preconditioned sharpness above which Adam with rate `lr` is not stable."""
    return (2 + 2 * beta1) / ((1 - beta1) * lr)


def hessian(loss: Callable[[], Float[Tensor, ""]], parameters: Sequence[Tensor]) -> Product:
    """The Hessian of `loss` at fp64 `parameters`, from differences of gradients on both sides.

    Two gradients a product, as differentiating twice would cost, but fused kernels that cannot be
    differentiated twice will do. The parameters are as before when a product is returned.
    """
    centre = [parameter.detach().clone() for parameter in parameters]
    size = torch.stack([part.square().sum() for part in centre]).sum().sqrt().item() or 1.0

    def gradient_at(direction: list[Tensor], distance: float) -> Tensor:
        with torch.no_grad():
            for parameter, origin, part in zip(parameters, centre, direction, strict=True):
                parameter.copy_(origin + distance * part)
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss(), parameters)
        return torch.cat([gradient.flatten() for gradient in gradients])

    def product(vector: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        distance = _STEP * size / vector.norm().item()
        parts = vector.split([part.numel() for part in centre])
        direction = [part.view_as(origin) for part, origin in zip(parts, centre, strict=True)]
        ahead, behind = gradient_at(direction, distance), gradient_at(direction, -distance)
        with torch.no_grad():
            for parameter, origin in zip(parameters, centre, strict=True):
                parameter.copy_(origin)
        return (ahead - behind) / (2 * distance)

    return product


def preconditioned(product: Product, diagonal: Float[Tensor, " P"]) -> Product:
    """P^-1/2 A P^-1/2 of a matrix A and positive P = diag(diagonal): eigenvalues of P^-1 A."""
    scale = diagonal.rsqrt()
    return lambda vector: scale * product(scale * vector)


def largest_eigenvalue(
    product: Product, like: Float[Tensor, " P"], *, products: int, tolerance: float, seed: int
) -> Eigenvalue:
    """The largest (not the largest absolute) eigenvalue, by Lanczos' method from a random vector.

    It takes the best of all that power iteration passes through, so tens of products do where that
    takes hundreds, and negative eigenvalues do not hide a positive one. Three vectors are kept;
    what rounding costs without the others is copies of eigenvalues found, not the largest (Paige
    1980). Ends when the residual is below `tolerance` times the value, or after so many `products`.
    """
    generator = torch.Generator(like.device).manual_seed(seed)
    vector = torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)
    vector = vector / vector.norm()
    before = torch.zeros_like(vector)
    diagonal: list[float] = []
    beside: list[float] = [0.0]
    while True:
        image = product(vector) - beside[-1] * before
        diagonal.append(torch.dot(vector, image).item())
        image = image - diagonal[-1] * vector
        beyond = image.norm().item()
        small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        if len(diagonal) > 1:
            off = torch.tensor(beside[1:], dtype=torch.float64)
            small = small + torch.diag(off, 1) + torch.diag(off, -1)
        values, vectors = torch.linalg.eigh(small)
        value, residual = values[-1].item(), beyond * abs(vectors[-1, -1].item())
        if residual <= tolerance * abs(value) or len(diagonal) == products:
            return Eigenvalue(value, residual, len(diagonal))
        beside.append(beyond)
        before, vector = vector, image / beyond
