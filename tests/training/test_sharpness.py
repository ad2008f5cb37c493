"""The largest eigenvalue of Hessians that are known, or computed whole."""

import pytest
import torch
from torch import Tensor

from lmray.config import Model
from lmray.model import TransformerLM, cross_entropy
from lmray.training.sharpness import (
    hessian,
    largest_eigenvalue,
    preconditioned,
    stability_limit,
)
from tests.devices import DEVICES


def symmetric(eigenvalues: list[float], seed: int) -> Tensor:
    torch.manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues)).double())
    return basis @ torch.diag(torch.tensor(eigenvalues).double()) @ basis.T


@pytest.mark.parametrize(
    "eigenvalues", [[5, 1, 0.5, -2], [3, -7, 1, 0.5], [-1, -2, -3, -8], [2, 2, 2, 2], [4, -4.5, 0]]
)
def test_the_largest_is_found_whatever_the_sign_of_the_greatest(eigenvalues: list[float]):
    matrix = symmetric(eigenvalues, seed=1)
    found = largest_eigenvalue(
        lambda vector: matrix @ vector, matrix[0], products=2000, tolerance=1e-6, seed=3
    )
    assert found.value == pytest.approx(max(eigenvalues), rel=1e-5)
    assert found.residual < 1e-4
    assert found.products < 2000


def test_it_ends_after_the_products_it_was_given():
    matrix = symmetric([1.0, 0.9999, 0.9, 0.7, 0.4], seed=2)
    found = largest_eigenvalue(
        lambda vector: matrix @ vector, matrix[0], products=3, tolerance=1e-12, seed=0
    )
    assert found.products == 3
    # Within its residual there is an eigenvalue, and none is above the largest.
    assert min(abs(found.value - each) for each in (1, 0.9999, 0.9, 0.7, 0.4)) <= found.residual
    assert found.value <= 1 + 1e-9


def test_a_product_with_the_hessian_is_the_whole_hessians():
    torch.manual_seed(0)
    data, target = torch.randn(7, 3).double(), torch.randn(7).double()
    first = torch.randn(3, 4).double().requires_grad_()
    second = torch.randn(4).double().requires_grad_()

    def loss(first: Tensor, second: Tensor) -> Tensor:
        return ((data @ first).tanh() @ second - target).square().mean()

    blocks = torch.autograd.functional.hessian(loss, (first, second))
    whole = torch.cat(
        [
            torch.cat([b.reshape(s, -1) for b in row], 1)
            for s, row in zip((12, 4), blocks, strict=True)
        ]
    )
    before = first.detach().clone()
    vector = torch.randn(16).double()
    product = hessian(lambda: loss(first, second), [first, second])
    torch.testing.assert_close(product(vector), whole @ vector, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(product(1e4 * vector), whole @ (1e4 * vector), rtol=1e-6, atol=1e-3)
    assert torch.equal(first, before)
    assert first.grad is None


@pytest.mark.parametrize("device", DEVICES)
def test_a_transformers_sharpness_is_that_of_its_whole_hessian(device: str):
    torch.manual_seed(0)
    config = Model(vocab_size=7, context_length=4, num_layers=1, d_model=4, num_heads=1, d_ff=4)
    model = TransformerLM.from_config(config).double().to(device)
    ids = torch.randint(7, (3, 5)).to(device)
    parameters = list(model.parameters())

    def loss() -> Tensor:
        return cross_entropy(model(ids[:, :-1]), ids[:, 1:])

    product = hessian(loss, parameters)
    unit = torch.eye(sum(p.numel() for p in parameters)).to(ids.device, torch.float64)
    whole = torch.stack([product(row) for row in unit])
    torch.testing.assert_close(whole, whole.T, rtol=1e-4, atol=1e-6)
    eigenvalues, vectors = torch.linalg.eigh((whole + whole.T) / 2)
    found = largest_eigenvalue(product, whole[0], products=500, tolerance=1e-4, seed=0)
    assert found.value == pytest.approx(eigenvalues[-1].item(), rel=1e-3)
    # The curve of the loss along that direction, from losses alone.
    direction, distance = vectors[:, -1], 1e-3
    with torch.no_grad():
        centre = torch.nn.utils.parameters_to_vector(parameters)
        losses = []
        for side in (-1, 0, 1):
            torch.nn.utils.vector_to_parameters(centre + side * distance * direction, parameters)
            losses.append(loss().item())
    bend = (losses[0] - 2 * losses[1] + losses[2]) / distance**2
    assert bend == pytest.approx(found.value, rel=1e-3)


def test_preconditioning_divides_by_the_diagonal():
    matrix = symmetric([5, 1, 0.5, -2], seed=4)
    diagonal = torch.tensor([0.1, 2.0, 30.0, 0.7]).double()
    expected = torch.linalg.eigvals(torch.diag(1 / diagonal) @ matrix).real.max().item()
    found = largest_eigenvalue(
        preconditioned(lambda vector: matrix @ vector, diagonal),
        diagonal,
        products=5000,
        tolerance=1e-7,
        seed=0,
    )
    assert found.value == pytest.approx(expected, rel=1e-5)


def test_adams_limit_is_38_by_the_rate_and_descents_is_2():
    assert stability_limit(1e-3, 0.9) == pytest.approx(38_000)
    assert stability_limit(0.5, 0.0) == pytest.approx(4.0)


def test_gradient_descent_on_a_quadratic_is_stable_below_the_limit_only():
    matrix = symmetric([5, 1, 0.5, 0.2], seed=5)
    for lr, stable in ((0.99 * 2 / 5, True), (1.01 * 2 / 5, False)):
        weights = torch.ones(4).double()
        for _ in range(2000):
            weights = weights - lr * (matrix @ weights)
        assert (weights.norm() < 1) == stable


def test_adam_with_fixed_moments_is_stable_below_its_limit_only():
    matrix = symmetric([5, 1, 0.5, 0.2], seed=6)
    diagonal = torch.tensor([0.1, 2.0, 30.0, 0.7]).double()
    largest = torch.linalg.eigvals(torch.diag(1 / diagonal) @ matrix).real.max().item()
    beta1 = 0.9
    for share, stable in ((0.98, True), (1.02, False)):
        lr = share * stability_limit(1.0, beta1) / largest
        weights, mean = torch.ones(4).double(), torch.zeros(4).double()
        for _ in range(3000):
            mean = beta1 * mean + (1 - beta1) * (matrix @ weights)
            weights = weights - lr * mean / diagonal
        assert (weights.norm() < 1) == stable
