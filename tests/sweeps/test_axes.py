import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.config import Run, flatten
from lmray.errors import UsageError
from lmray.sweeps.axes import (
    Axes,
    Integer,
    LogUniform,
    Uniform,
    Variants,
    When,
    assigned,
    check,
    grid,
)
from lmray.sweeps.axes_plain import from_plain, to_plain

BASE = Run()
RATES = {
    "variant": Variants({"baseline": {}, "no norm": {"model.norm": "none"}}),
    "optim.lr": [When({"variant": "no norm"}, [1e-3, 1e-4]), When({}, [3e-3])],
}


def test_a_grid_has_an_axis_only_where_its_condition_holds():
    axes: Axes = {
        "data.batch_size": [16, 32],
        "variant": RATES["variant"],
        "optim.lr": [When({"variant": "no norm", "data.batch_size": [32, 64]}, [1e-3, 1e-4])],
    }
    assert grid(axes) == [
        {"data.batch_size": 16, "variant": "baseline"},
        {"data.batch_size": 16, "variant": "no norm"},
        {"data.batch_size": 32, "variant": "baseline"},
        {"data.batch_size": 32, "variant": "no norm", "optim.lr": 1e-3},
        {"data.batch_size": 32, "variant": "no norm", "optim.lr": 1e-4},
    ]


def test_the_first_condition_that_holds_brings_the_axis():
    found = grid(RATES)
    assert [each["optim.lr"] for each in found] == [3e-3, 1e-3, 1e-4]


def test_variants_are_spelt_out_in_what_a_combination_changes():
    assert assigned(RATES, {"variant": "no norm", "optim.lr": 1e-3}) == {
        "model.norm": "none",
        "optim.lr": 1e-3,
    }
    both = {"variant": Variants({"slow": {"optim.lr": 1e-4}}), "optim.lr": [1e-3]}
    with pytest.raises(UsageError, match=r"another axis both change optim\.lr"):
        assigned(both, grid(both)[0])


@given(st.floats(0, 1))
def test_a_share_of_a_range_is_a_value_in_it_and_a_larger_share_none_below(share: float):
    for axis in (Uniform(-1.0, 3.0), LogUniform(1e-5, 1e-1), Integer(1, 6)):
        value = axis.at(share)
        assert axis.low <= value <= axis.high
        assert axis.at(share / 2) <= value
    assert LogUniform(1e-5, 1e-1).at(0.5) == pytest.approx(1e-3, rel=1e-3)
    assert Integer(1, 6).at(share) == min(1 + int(share * 6), 6)


def test_axes_are_the_same_after_json_had_them():
    axes: Axes = {
        **RATES,
        "optim.beta2": Uniform(0.9, 0.99),
        "optim.eps": LogUniform(1e-9, 1e-6),
        "data.batch_size": Integer(1, 8),
        "optim.weight_decay": [0.0, 0.1],
    }
    again = {key: from_plain(to_plain(axis)) for key, axis in axes.items()}
    assert again == axes
    assert [type(axis) for axis in again.values()] == [type(axis) for axis in axes.values()]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"optim.lr": "1e-3"}, "is no list of values"),
        ({"optim.lr": [When({"optim.beta1": 0.9}, [1e-3])]}, "waits for optim.beta1"),
        (
            {
                "variant": RATES["variant"],
                "optim.lr": [When({"variant": "no nrm"}, [1e-3])],
            },
            "waits for variant='no nrm', which is none of 'baseline', 'no norm'",
        ),
        ({"optim.lr": [When({}, [1e-3]), 1e-2]}, "mixes When and values"),
        ({"variant": Variants({"two": {"model.norm": "none", "seed": 1}})}, "2 switches and not 1"),
        ({"variant": Variants({"same": {"model.norm": "pre"}})}, "which the base has already"),
        ({"variant": Variants({"typo": {"model.nrom": "none"}})}, "did you mean model.norm"),
        ({"rate": ["fixed"]}, "unknown key 'rate'"),
    ],
)
def test_axes_that_cannot_mean_anything_are_refused(axes: Axes, message: str):
    with pytest.raises(UsageError, match=re.escape(message)):
        check("test", axes, BASE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(2, 1), "is empty"),
        (lambda: Integer(2, 2), "is empty"),
        (lambda: LogUniform(0, 1), "has no logarithm"),
        (lambda: grid({"optim.lr": LogUniform(1e-4, 1e-1)}), "cannot be listed for a grid"),
    ],
)
def test_ranges_that_cannot_be_drawn_from_or_listed_are_refused(make, message: str):
    with pytest.raises(UsageError, match=message):
        make()


def test_every_shipped_ablation_differs_from_the_baseline_in_the_one_switch_it_names():
    from lmray.sweeps.space_file import load_space

    space = load_space("ablations")
    base = flatten(space.base)
    for combination in space.combinations():
        run = flatten(space.run_of(combination))
        differing = {key for key in run if run[key] != base[key]} - {"optim.lr"}
        assert len(differing) == (combination["variant"] != "baseline")
