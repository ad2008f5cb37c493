"""The learning rate: the coursework's examples, its bounds, its ends."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.config import Optim
from lmray.training import get_lr_cosine_schedule
from lmray.training.schedules import learning_rate


def test_shape_of_the_courseworks_schedule():
    rates = [get_lr_cosine_schedule(it, 1.0, 0.1, 4, 12) for it in range(15)]
    assert rates[:5] == [0, 0.25, 0.5, 0.75, 1.0]
    assert rates[8] == pytest.approx(0.55)  # half-way down
    assert rates[12:] == pytest.approx([0.1, 0.1, 0.1])
    assert rates[6] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)


def test_without_warm_up_or_without_decay():
    assert get_lr_cosine_schedule(0, 1.0, 0.1, 0, 10) == 1.0
    assert get_lr_cosine_schedule(5, 1.0, 0.1, 5, 5) == 1.0
    assert get_lr_cosine_schedule(6, 1.0, 0.1, 5, 5) == 0.1


def test_learning_rate_by_hand():
    optim = Optim(lr=0.8, min_lr_fraction=0.25, warmup_fraction=0.4)
    rates = [learning_rate(step, optim=optim, total_steps=10) for step in range(10)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[6] == pytest.approx(0.5)  # half-way from step 3 to step 9
    assert rates[9] == pytest.approx(0.2)


optims = st.builds(
    Optim,
    lr=st.floats(1e-6, 1.0),
    min_lr_fraction=st.floats(0, 1),
    warmup_fraction=st.floats(0, 1, exclude_max=True),
)


@given(optim=optims, total_steps=st.integers(1, 300))
def test_rises_then_falls_within_bounds_to_its_end(optim, total_steps):
    rates = [
        learning_rate(step, optim=optim, total_steps=total_steps) for step in range(total_steps)
    ]
    assert rates[0] > 0
    peak = rates.index(max(rates))
    assert rates[peak] == pytest.approx(optim.lr, rel=1e-12)
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(rates[peak:]))
    if total_steps > 1:
        floor = optim.min_lr_fraction * optim.lr
        assert rates[-1] == pytest.approx(floor, rel=1e-9)
        assert min(rates[peak:]) >= floor * (1 - 1e-9)
