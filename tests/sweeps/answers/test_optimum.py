"""Optima against simulated losses whose optimum is known, and against numpy's own fit."""

import math

import numpy as np
import pytest

from lmray.sweeps.answers.confidence import student_t
from lmray.sweeps.answers.optimum import WINDOW, optimum

RATES = [float(f"{1e-3 * 1.5**step:.4g}") for step in range(-4, 5)]


def simulated(
    draw: np.random.Generator,
    *,
    seeds: int,
    noise: float,
    best: float = 1.2e-3,
    cubic: float = 0.0,
) -> dict[float, dict[int, float]]:
    levels = draw.normal(0, 0.1, seeds)
    return {
        rate: {
            seed: 3
            + 0.3 * math.log(rate / best) ** 2
            + cubic * math.log(rate / best) ** 3
            + levels[seed]
            + draw.normal(0, noise)
            for seed in range(seeds)
        }
        for rate in RATES
    }


@pytest.mark.parametrize(("seeds", "noise"), [(1, 0.002), (1, 0.01), (3, 0.01), (5, 0.02)])
def test_the_interval_holds_the_true_optimum_in_95_of_100_sweeps(seeds: int, noise: float):
    draw = np.random.default_rng(seeds)
    found = [optimum(simulated(draw, seeds=seeds, noise=noise)) for _ in range(2000)]
    known = [each for each in found if not each.unknown]
    held = sum(each.low <= 1.2e-3 <= each.high for each in known) / len(known)
    # Four standard errors of 2,000 draws.
    assert abs(held - 0.95) < 0.02
    assert len(known) > 1900


def test_without_noise_it_is_the_optimum_and_the_interval_a_point():
    found = optimum(simulated(np.random.default_rng(0), seeds=3, noise=0.0))
    assert found.value == pytest.approx(1.2e-3, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((1.2e-3, 1.2e-3), rel=1e-4)
    assert found.curvature == pytest.approx(0.3)
    assert found.loss_at(2.4e-3) - found.loss == pytest.approx(0.3 * math.log(2) ** 2)


def test_it_is_numpys_parabola_through_the_values_near_the_lowest():
    losses = simulated(np.random.default_rng(1), seeds=1, noise=0.01, cubic=0.05)
    found = optimum(losses)
    lowest = min(losses, key=lambda rate: losses[rate][0])
    near = [rate for rate in RATES if lowest / WINDOW <= rate <= lowest * WINDOW]
    assert found.values == tuple(near)
    assert found.n == len(near)
    x, y = np.log(near), [losses[rate][0] for rate in near]
    (c, b, a), spread = np.polyfit(x, y, 2, cov=True)
    assert math.log(found.value) == pytest.approx(-b / (2 * c))
    assert found.loss == pytest.approx(a - b * b / (4 * c))
    # At the ends of the interval the slope is t of its own standard errors.
    for end in (math.log(found.low), math.log(found.high)):
        gradient = np.array([2 * end, 1.0, 0.0])
        error = math.sqrt(gradient @ spread @ gradient)
        assert abs(2 * c * end + b) / error == pytest.approx(student_t(len(near) - 3), rel=1e-6)


def test_a_seed_that_shifts_all_its_losses_widens_nothing():
    losses = simulated(np.random.default_rng(2), seeds=2, noise=0.01)
    shifted = {rate: {0: by[0], 1: by[1] + 7} for rate, by in losses.items()}
    one, other = optimum(losses), optimum(shifted)
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def bowl(*losses: float) -> dict[float, dict[int, float]]:
    return {1e-3 * 1.3**step: {0: loss} for step, loss in enumerate(losses)}


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        ({}, "no trial has a loss"),
        (bowl(4, 3, 2, 1.5, 1), "at the edge of the values known"),
        (bowl(2, 1, 2), "values within a factor of 3 of the lowest: 3, too few"),
        (bowl(2, 1.99, 3, 2.9, 2.8), "do not curve upwards"),
    ],
)
def test_what_the_losses_do_not_tell_is_unknown(losses: dict, why: str):
    found = optimum(losses)
    assert why in found.unknown
    assert math.isnan(found.value)
    assert math.isnan(found.low)


def test_an_interval_that_leaves_the_values_is_unknown_and_the_optimum_is_told():
    found = optimum(bowl(3.0, 2.9, 2.95, 2.8, 3.1))
    assert "its interval leaves the values" in found.unknown
    assert found.value > 0
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_values_with_fewer_seeds_are_fitted_but_are_not_the_lowest():
    losses = simulated(np.random.default_rng(3), seeds=3, noise=0.001)
    losses[RATES[6]] = {0: losses[RATES[6]][0] - 0.05}
    found = optimum(losses)
    assert found.value == pytest.approx(1.2e-3, rel=0.3)
    assert found.n == sum(len(losses[rate]) for rate in found.values)
