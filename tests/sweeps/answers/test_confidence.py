import math
import statistics

import pytest

from lmray.sweeps.answers.confidence import Estimate, paired, student_t

# Two-sided 95 % points from the table in Abramowitz and Stegun 1964, 26.10.
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 30: 2.042}


@pytest.mark.parametrize(("freedom", "t"), TABLE.items())
def test_students_points_are_those_of_the_tables(freedom: int, t: float):
    assert student_t(freedom) == pytest.approx(t, abs=5e-4)


def test_many_degrees_of_freedom_are_a_normal_distribution():
    normal = statistics.NormalDist().inv_cdf(0.995)
    assert student_t(100_000, level=0.99) == pytest.approx(normal, rel=1e-4)


def test_a_mean_has_the_spread_and_margin_of_its_sample():
    estimate = Estimate((1.0, 2.0, 3.0))
    assert (estimate.n, estimate.mean, estimate.spread) == (3, 2.0, 1.0)
    assert estimate.margin == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)


def test_one_number_or_none_has_no_margin():
    assert math.isnan(Estimate((1.0,)).margin)
    assert math.isnan(Estimate(()).mean)


def test_pairing_takes_out_what_the_seeds_do_to_both():
    theirs = {0: 2.0, 1: 5.0, 2: 9.0}
    ours = {seed: loss + 0.1 for seed, loss in theirs.items() if seed != 1} | {7: 1.0}
    difference = paired(ours, theirs)
    assert difference.values == pytest.approx((0.1, 0.1))
    assert difference.margin == pytest.approx(0, abs=1e-12)
