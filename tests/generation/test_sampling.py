"""What each cut keeps, and what it refuses."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmray.errors import UsageError
from lmray.generation import Sampling, largest, likely_enough, nucleus

weights = st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any)


@given(
    weights=st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any),
    top_p=st.floats(1e-6, 1),
)
def test_nucleus_is_the_smallest_set_that_reaches_top_p(weights, top_p):
    probabilities = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    found = nucleus(probabilities, top_p)
    kept = found > 0
    assert kept.any()
    assert found.sum().item() == pytest.approx(1)
    mass = probabilities[kept].sum().item()
    assert mass >= top_p - 1e-9
    assert mass - probabilities[kept].min().item() < top_p + 1e-9  # one fewer would not reach it
    if (~kept).any():
        assert probabilities[kept].min() >= probabilities[~kept].max()


def test_nucleus_by_hand():
    probabilities = torch.tensor([0.1, 0.5, 0.15, 0.25])
    torch.testing.assert_close(nucleus(probabilities, 0.5), torch.tensor([0, 1.0, 0, 0]))
    torch.testing.assert_close(nucleus(probabilities, 0.51), torch.tensor([0, 2 / 3, 0, 1 / 3]))
    assert torch.equal(nucleus(probabilities, 1.0), probabilities)
    assert torch.equal(nucleus(torch.full((4,), 0.25), 0.3) > 0, torch.tensor([1, 1, 0, 0]) > 0)


@given(weights, st.integers(1, 14))
def test_largest_keeps_that_many_and_none_less_likely(weights, top_k):
    probabilities = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    found = largest(probabilities, top_k).tolist()
    kept = sorted(range(len(weights)), key=lambda token: -weights[token])[:top_k]
    mass = sum(weights[token] for token in kept)
    expected = [w / mass if token in kept else 0 for token, w in enumerate(weights)]
    assert found == pytest.approx(expected)


@given(weights, st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]))
def test_likely_enough_is_relative_to_the_likeliest(weights, min_p):
    probabilities = torch.tensor(weights, dtype=torch.float64)
    found = likely_enough(probabilities, min_p).tolist()
    kept = [w if w >= min_p * max(weights) else 0 for w in weights]
    assert found == pytest.approx([w / sum(kept) for w in kept])


def test_the_cuts_come_one_after_the_other():
    """top_k leaves 0.4, 0.3, 0.2 and then top_p counts a mass of 0.9 as all of it."""
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    drawn = {
        sampling: {
            sampling.choose(logits, torch.Generator().manual_seed(seed)) for seed in range(60)
        }
        for sampling in (
            Sampling(),
            Sampling(top_k=3),
            Sampling(top_k=3, top_p=0.75),
            Sampling(top_p=0.75),
            Sampling(min_p=0.7),
            Sampling(temperature=0.5, min_p=0.7),
        )
    }
    assert [sorted(tokens) for tokens in drawn.values()] == [
        [0, 1, 2, 3],
        [0, 1, 2],
        [0, 1],
        [0, 1, 2],
        [0, 1],
        [0],
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, r"temperature=-0.1 is not a number from 0; 0 takes the likeliest"),
        ({"temperature": math.inf}, "temperature=inf"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"top_p": 0.0}, r"top_p=0.0 is not in \(0, 1\]; 1 keeps every token"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"top_k": -1}, "top_k=-1 is not a whole number from 0; 0 keeps every token"),
        ({"min_p": -0.1}, r"min_p=-0.1 is not in \[0, 1\]; 0 keeps every token"),
        ({"min_p": math.nan}, "min_p=nan"),
    ],
)
def test_refuses_what_is_out_of_range(settings, message):
    with pytest.raises(UsageError, match=message):
        Sampling(**settings)
