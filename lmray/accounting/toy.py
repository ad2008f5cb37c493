"""The SGD toy: what three learning rates do to the mean of squares of a hundred weights."""

from collections.abc import Iterator


def sgd_toy(lr: float, steps: int = 10, seed: int = 42) -> list[float]:
    """Losses mean(w^2) before each step w <- w - lr / sqrt(t + 1) gradient, t from 0.

    w starts as 5 randn(10, 10); trained by autograd.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    weights = (5 * torch.randn(10, 10, generator=generator)).requires_grad_()
    losses = []
    for t in range(steps):
        loss = weights.square().mean()
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            weights -= lr / (t + 1) ** 0.5 * gradient
    return losses


def sgd_toy_exactly(first_loss: float, lr: float, steps: int = 10) -> Iterator[float]:
    """The same in closed form: the gradient is 2 w / 100, so each step scales w.

    A step multiplies the loss by (1 - 2 lr / (100 sqrt(t + 1)))^2: at lr 100 the first changes
    every sign and no size, and above it the loss grows until sqrt(t + 1) has caught up.
    """
    loss = first_loss
    for t in range(steps):
        yield loss
        loss *= (1 - 2 * lr / (100 * (t + 1) ** 0.5)) ** 2
