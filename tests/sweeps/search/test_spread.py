"""The order in which a grid starts, against van der Corput's definition and against its purpose."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.errors import UsageError
from lmray.sweeps.axes import LogUniform, When, grid
from lmray.sweeps.search import Bracket, Grid
from lmray.sweeps.search.spread import radical_inverse, spread


@given(number=st.integers(1, 10**6), base=st.sampled_from([2, 3, 5, 7]))
def test_a_radical_inverse_mirrors_the_digits_at_the_point(number: int, base: int):
    digits, rest = [], number
    while rest:
        rest, digit = divmod(rest, base)
        digits.append(digit)
    exact = sum(Fraction(digit, base ** (i + 1)) for i, digit in enumerate(digits))
    assert radical_inverse(number, base) == pytest.approx(float(exact), rel=1e-12)


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4))
def test_it_is_the_grid_in_another_order(lengths: list[int]):
    axes = {f"axis{i}": list(range(length)) for i, length in enumerate(lengths)}
    found, listed = spread(axes), grid(axes)
    assert len(found) == len(listed)
    assert all(each in listed for each in found)
    assert Grid().design(axes) == found


@given(n=st.integers(2, 200), k=st.integers(1, 200))
def test_the_first_few_leave_no_large_gap_along_one_axis(n: int, k: int):
    k = min(k, n)
    tried = sorted(each["lr"] for each in spread({"lr": list(range(n))})[:k])
    gaps = [after - before - 1 for before, after in zip([-1, *tried], [*tried, n], strict=True)]
    # Of a van der Corput sequence no gap is wider than twice what even spacing would leave.
    assert max(gaps) <= 2 * n / (k + 1) + 1


def test_an_axis_starts_in_its_middle_and_a_bracket_does_so_too():
    axes = {"optim.lr": [1e-4, 1e-3, 1e-2, 1e-1, 1.0]}
    assert [each["optim.lr"] for each in spread(axes)] == [1e-2, 1e-3, 1e-1, 1e-4, 1.0]
    assert Bracket("optim.lr", ratio=1.5).design(axes) == spread(axes)


def test_two_axes_are_spread_over_both_and_not_one_after_the_other():
    first = spread({"a": list(range(4)), "b": list(range(8))})[:8]
    assert {each["a"] for each in first} == {0, 1, 2, 3}
    assert {each["b"] for each in first} == set(range(8))


def test_an_axis_that_is_there_under_a_condition_is_there_under_it_only():
    axes = {"variant": ["x", "y"], "lr": [When({"variant": "y"}, [1, 2, 3])]}
    found = spread(axes)
    assert len(found) == 4
    assert {"variant": "x"} in found
    assert all(("lr" in each) == (each["variant"] == "y") for each in found)


def test_a_range_has_no_grid():
    with pytest.raises(UsageError, match="cannot be listed"):
        spread({"optim.lr": LogUniform(1e-4, 1e-1)})
