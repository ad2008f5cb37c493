"""Sixteen numbers at once against numpy's."""

from pathlib import Path

import numpy as np
import pytest

from lmray.native import load

WIDTH = 16


@pytest.fixture(scope="module")
def kernels():
    return load("tests.native.lane_kernel", Path(__file__).parent)


def powers(kernels, x):
    out = np.empty(WIDTH, np.float32)
    kernels.powers(x, out)
    return out


def test_powers_of_two_are_right_to_a_unit_in_the_last_place_of_one(kernels):
    for x in np.random.default_rng(0).uniform(-126, 126, (2000, WIDTH)).astype(np.float32):
        exact = np.exp2(x.astype(np.float64))
        np.testing.assert_allclose(powers(kernels, x), exact, rtol=2**-23, atol=0)


def test_whole_powers_are_exact_and_bounds_are_kept(kernels):
    x = np.array([0, 1, -1, 10, -126, 126, 127, 1e30, -127, -1e30, np.inf, -np.inf, *[0] * 4])
    expected = np.exp2(np.clip(x, -np.inf, 126)) * (x >= -126)
    np.testing.assert_array_equal(powers(kernels, x.astype(np.float32)), expected)


def test_what_is_no_number_stays_none(kernels):
    x = np.full(WIDTH, np.nan, np.float32)
    x[3] = 2
    np.testing.assert_array_equal(np.isnan(powers(kernels, x)), np.arange(WIDTH) != 3)


@pytest.mark.parametrize("count", [-5, 0, 1, 15, 16, 17, 2**40])
def test_the_first_lanes(kernels, count):
    x, out = np.arange(1, 17, dtype=np.float32), np.full(48, -1, np.float32)
    kernels.first(x, out, count, 0.5)
    inside = np.arange(WIDTH) < count
    np.testing.assert_array_equal(out[:16], np.where(inside, x, 0.5))
    np.testing.assert_array_equal(out[16:32], np.where(inside, x, 0.5))
    np.testing.assert_array_equal(out[32:], np.where(inside, x, -1))


def test_arithmetic(kernels):
    x, y = np.random.default_rng(0).normal(size=(2, WIDTH)).astype(np.float32)
    out = np.empty(8 * WIDTH, np.float32)
    kernels.arithmetic(x, y, out)
    found = out.reshape(8, WIDTH)
    everywhere = np.ones(WIDTH, np.float32)
    for mine, expected in zip(
        found,
        (x + y, x - y, x * y, x / y, np.maximum(x, y), x.sum() * everywhere, x.max() * everywhere,
         x[3] * everywhere),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)
