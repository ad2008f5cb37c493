"""Muon against torch's, its orthogonalisation against the singular value decomposition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lmray.errors import UsageError
from lmray.training import Muon
from lmray.training.optimizers import muon
from tests.devices import DEVICES

SHAPES = [(12, 8), (8, 12), (12, 8), (6, 6)]


def matrices(dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES]
    return [nn.Parameter(matrix.to(device)) for matrix in made]


def run(params, optimizer, steps):
    for step in range(steps):
        optimizer.zero_grad()
        sum(((p - i) ** 2 * (1 + step % 3)).sum() for i, p in enumerate(params)).backward()
        optimizer.step()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_the_orthogonal_part_has_the_directions_of_the_svd(rows, columns, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    # Singular values of one size: five iterations do not lift one that is a thousandth of another.
    u, s, vh = torch.linalg.svd(
        torch.randn(rows, columns, generator=generator, dtype=torch.float64), full_matrices=False
    )
    matrix = u @ torch.diag(0.2 + s / s.max()) @ vh * scale
    found = muon.orthogonalised(matrix.unsqueeze(0))[0]
    inner = u.T @ found @ vh.T
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-9, rtol=0)
    assert inner.diagonal().min() > 0.65
    assert inner.diagonal().max() < 1.25


@pytest.mark.parametrize("device", DEVICES)
def test_equals_torch_in_the_bf16_that_torch_iterates_in(device, monkeypatch):
    true = muon.orthogonalised
    monkeypatch.setattr(muon, "orthogonalised", lambda x: true(x, torch.bfloat16))
    ours, theirs = (matrices(device=device) for _ in range(2))
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    run(ours, Muon(ours, **options), 20)
    run(theirs, torch.optim.Muon(theirs, **options), 20)
    for mine, its in zip(ours, theirs, strict=True):
        # One bf16 rounding of a step of 0.02 is 1e-4.
        torch.testing.assert_close(mine, its, atol=5e-4, rtol=0)


def test_tall_matrices_take_longer_steps():
    for shape, factor in [((32, 8), 2.0), ((8, 32), 1.0), ((8, 8), 1.0)]:
        weight = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        u, _, vh = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
        weight.grad = u @ vh
        Muon([weight], lr=0.1).step()
        singular = torch.linalg.svdvals(weight.detach())
        assert singular.min() > 0.1 * factor * 0.65
        assert singular.max() < 0.1 * factor * 1.25


def test_normuon_evens_the_rows_and_keeps_the_norm():
    """Against the formula of the paper, written for one matrix and two steps."""
    ours = nn.Parameter(torch.zeros(6, 10, dtype=torch.float64))
    optimizer = Muon([ours], lr=0.1, momentum=0.9, normalised=True, beta2=0.8)
    generator = torch.Generator().manual_seed(1)
    expected, mean, square = torch.zeros(6, 10), torch.zeros(6, 10), torch.zeros(6)
    expected, mean, square = expected.double(), mean.double(), square.double()
    for _ in range(2):
        ours.grad = torch.randn(6, 10, generator=generator, dtype=torch.float64)
        mean = 0.9 * mean + 0.1 * ours.grad
        step = muon.orthogonalised((0.9 * mean + 0.1 * ours.grad).unsqueeze(0))[0]
        square = 0.8 * square + 0.2 * step.pow(2).mean(1)
        even = step / (square + 1e-10).sqrt()[:, None]
        even *= step.norm() / even.norm()
        expected = expected - 0.1 * even
        optimizer.step()
        torch.testing.assert_close(ours.detach(), expected, rtol=1e-9, atol=1e-12)
    row_norms = (even**2).sum(1)
    assert row_norms.std() < (step**2).sum(1).std() or step.shape[0] == 1


def test_refuses_what_is_no_matrix_and_impossible_settings():
    with pytest.raises(UsageError, match=r"shape \(3,\) and moves matrices; give that one to A"):
        Muon([nn.Parameter(torch.zeros(3))])
    with pytest.raises(UsageError, match=r"momentum=1.0 must be in \[0, 1\); choose another"):
        Muon(matrices(), momentum=1.0)
