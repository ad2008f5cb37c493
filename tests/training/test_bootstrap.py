"""The bootstrap: its draws against plain Python, its coverage against a known truth."""

import math
import random
import statistics

import numpy as np
import pytest

from lmray.training.bootstrap import percentile_interval, ratio_intervals, resampled_sums


def documents(draw, count):
    """Nats and tokens of documents of very different lengths and difficulties."""
    tokens = draw.geometric(1 / 40, size=count).astype(float)
    difficulty = draw.normal(3.0, 0.4, size=count)  # nats/token, one for a document
    return tokens * difficulty + draw.normal(0, 1, size=count) * np.sqrt(tokens), tokens


def test_sums_are_of_documents_drawn_with_replacement():
    """Powers of a base tell how often each document was drawn."""
    per_document = np.array([[1.0, 100.0, 10_000.0, 1_000_000.0], [1, 1, 1, 1]])
    sums = resampled_sums(per_document, resamples=400, seed=3)
    counts = np.array([[int(total) // 100**place % 100 for place in range(4)] for total, _ in sums])
    assert sums.shape == (400, 2)
    assert (sums[:, 1] == 4).all()
    assert (counts.sum(1) == 4).all()
    assert len({tuple(row) for row in counts}) > 25  # of the 35 there are
    assert abs(counts.mean(0) - 1).max() < 0.2


def test_the_seed_alone_decides():
    per_document = np.array([[1.0, 2.0, 4.0]])
    first = resampled_sums(per_document, resamples=50, seed=1)
    np.random.random()  # noqa: NPY002 - the global generator has nothing to do with it
    assert np.array_equal(resampled_sums(per_document, resamples=50, seed=1), first)
    assert not np.array_equal(resampled_sums(per_document, resamples=50, seed=2), first)


def test_an_interval_is_that_of_a_bootstrap_in_plain_python():
    nats, tokens = documents(np.random.default_rng(0), 150)
    draw = random.Random(0)
    ratios = []
    for _ in range(2000):
        drawn = [draw.randrange(150) for _ in range(150)]
        ratios.append(math.fsum(nats[i] for i in drawn) / math.fsum(tokens[i] for i in drawn))
    cuts = statistics.quantiles(ratios, n=40)
    (found,) = ratio_intervals(nats, tokens)
    width = cuts[-1] - cuts[0]
    # The ends of either have a standard error of about 3 % of the width.
    assert found.low == pytest.approx(cuts[0], abs=0.15 * width)
    assert found.high == pytest.approx(cuts[-1], abs=0.15 * width)


def test_each_denominator_has_its_own_interval():
    nats, tokens = documents(np.random.default_rng(0), 60)
    both = ratio_intervals(nats, tokens, tokens * 4)
    assert both[1].low == pytest.approx(both[0].low / 4)
    assert both[1].high == pytest.approx(both[0].high / 4)


def test_nineteen_of_twenty_intervals_hold_the_truth():
    """The truth is the ratio of expectations: 3 nats/token, for difficulty and length are apart.

    Of 80 samples 76 should hold it, give or take 2.
    """
    draw = np.random.default_rng(0)
    found = [ratio_intervals(*documents(draw, 150))[0] for _ in range(80)]
    assert 68 <= sum(interval.low <= 3.0 <= interval.high for interval in found) < 80


def test_tokens_drawn_one_by_one_would_promise_too_much():
    """Why documents: within one, tokens are alike, and an interval over tokens is too narrow."""
    nats, tokens = documents(np.random.default_rng(5), 300)
    (found,) = ratio_intervals(nats, tokens)
    each = np.repeat(nats / tokens, tokens.astype(int))
    over_tokens = 2 * 1.96 * each.std() / math.sqrt(len(each))
    assert found.high - found.low > 2 * over_tokens


@pytest.mark.parametrize(
    "nats", [[1.0], [1.0, math.nan], [math.inf, 1.0], [1.0, 2.0, -math.inf]], ids=str
)
def test_nothing_is_known_of_one_document_or_of_what_is_not_finite(nats):
    (found,) = ratio_intervals(np.array(nats), np.ones(len(nats)))
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_a_percentile_interval_leaves_a_fortieth_on_either_side():
    found = percentile_interval(np.arange(1001.0))
    assert (found.low, found.high) == pytest.approx((25, 975))
