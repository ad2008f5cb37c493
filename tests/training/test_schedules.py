"""The learning rate: the coursework's examples, its bounds, its ends."""

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.config import Optim, Phase, Run, build, override, parse_assignments, run_id
from lmray.errors import UsageError
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
    rates = [learning_rate(done, 10, optim=optim) for done in range(1, 11)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[6] == pytest.approx(0.5)  # half-way from step 3 to step 9
    assert rates[9] == pytest.approx(0.2)


def test_linear_constant_and_wsd_by_hand():
    common = {"lr": 0.8, "min_lr_fraction": 0.25, "warmup_fraction": 0.2}

    def rates(**options):
        optim = Optim(**common, **options)
        return pytest.approx([learning_rate(done, 10, optim=optim) for done in range(1, 11)])

    assert rates(schedule="linear") == [
        0.4, 0.8, 0.725, 0.65, 0.575, 0.5, 0.425, 0.35, 0.275, 0.2,
    ]  # fmt: skip
    assert rates(schedule="constant") == [0.4, *[0.8] * 9]
    assert rates(schedule="wsd", decay_fraction=0.3) == [0.4, *[0.8] * 6, 0.6, 0.4, 0.2]
    assert rates(schedule="wsd", decay_fraction=0.8) == rates(schedule="linear").expected


def test_phases_by_hand():
    phases = [
        Phase(share=0.2, start=0.0),
        Phase(share=0.4),
        Phase(share=0.4, end=0.1, shape="cosine"),
    ]
    optim = Optim(lr=0.5, schedule="phases", phases=phases)
    rates = [learning_rate(done, 10, optim=optim) for done in range(1, 11)]
    assert rates[:6] == pytest.approx([0.25, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert rates[7] == pytest.approx(0.5 * 0.55)  # half-way of the cosine
    assert rates[9] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"schedule": "wsd", "warmup_fraction": 0.5, "decay_fraction": 0.6},
            "optim.warmup_fraction=0.5 and optim.decay_fraction=0.6 are more than the whole budget",
        ),
        ({"schedule": "phases"}, "the shares of optim.phases make 0 and not 1; change one"),
        (
            {"schedule": "phases", "phases": [{"share": 0.5}, {"share": 0.25}]},
            "the shares of optim.phases make 0.75 and not 1",
        ),
        ({"phases": [{"share": 1.0}]}, "optim.schedule=cosine does not read it; set optim.schedu"),
        (
            {"schedule": "phases", "phases": [{"share": 2.0}]},
            "optim.phases.0.share=2.0 is not a finite number above 0 and at most 1; write it as in",
        ),
        ({"phases": 3}, r"optim.phases=3 is not a list; write it as in optim.phases=\[\]"),
        ({"schedule": "cos"}, "optim.schedule='cos' is neither 'cosine' nor 'linear' nor 'const"),
    ],
)
def test_impossible_schedules_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        build({"optim": values}, source="test")


def test_phases_survive_an_override_and_a_file():
    text = "optim.phases=[{'share': 0.5, 'start': 0}, {'share': 0.5, 'end': 0.0}]"
    run = override(Run(), parse_assignments([text, "optim.schedule=phases"]))
    assert [phase.start for phase in run.optim.phases] == [0.0, 1.0]
    assert Run.model_validate(json.loads(json.dumps(run.model_dump()))) == run
    assert run_id(run, "d") != run_id(Run(), "d")


optims = st.builds(
    Optim,
    lr=st.floats(1e-6, 1.0),
    min_lr_fraction=st.floats(0, 1),
    warmup_fraction=st.floats(0, 0.8),
    schedule=st.sampled_from(["cosine", "linear", "wsd"]),
    decay_fraction=st.floats(0.01, 0.2),
)


@given(optim=optims, total=st.integers(1, 300))
def test_rises_then_falls_within_bounds_to_its_end(optim, total):
    rates = [learning_rate(done, total, optim=optim) for done in range(1, total + 1)]
    assert rates[0] > 0
    peak = rates.index(max(rates))
    assert rates[peak] == pytest.approx(optim.lr, rel=1e-12)
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(rates[peak:]))
    if total > 1 and not (optim.schedule == "wsd" and round(optim.decay_fraction * total) == 0):
        floor = optim.min_lr_fraction * optim.lr
        assert rates[-1] == pytest.approx(floor, rel=1e-9, abs=1e-300)
        assert min(rates[peak:]) >= floor * (1 - 1e-9)
