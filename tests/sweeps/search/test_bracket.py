import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmray.errors import UsageError
from lmray.storage import read_lines
from lmray.sweeps.axes import Axes, LogUniform, Variants, When, grid
from lmray.sweeps.ledger import read_events
from lmray.sweeps.search import Bracket, Outcome
from lmray.sweeps.search.bracket import found_on
from lmray.sweeps.search.lines import Line, lines
from lmray.sweeps.space import TO_THE_END, Asha, Space
from tests.sweeps.search.landscape import BASE, Sweeping, bowl

COARSE = [1e-4, 1e-3, 1e-2]
RULES = [
    TO_THE_END,
    Asha(1_048_576, 2),
    Asha(1_048_576, 4),
    Asha(1_048_576, 2, "promote"),
    Asha(1_048_576, 4, "promote"),
]


def space(
    asha: Asha = TO_THE_END,
    search: Bracket | None = None,
    axes: Axes | None = None,
    seeds: tuple[int, ...] = (0, 1),
) -> Space:
    search = search or Bracket("optim.lr", ratio=1.5, trials=30)
    return Space("rates", "", BASE, axes or {"optim.lr": COARSE}, seeds, asha, search)


def bracketed(directory: Path, found: Space) -> list[Line]:
    events = read_events(directory / "ledger.jsonl")
    return lines(found.axes, "optim.lr", found.outcomes("d", events))


@pytest.mark.parametrize("asha", RULES, ids=lambda a: f"{a.mode}-{a.reduction_factor}")
@pytest.mark.parametrize("optimum", [2e-6, 7e-4, 5e-3, 0.06])
@pytest.mark.parametrize("places", [1, 3])
def test_it_ends_with_the_optimum_between_neighbours_and_a_diverged_run_above(
    tmp_path: Path, asha: Asha, optimum: float, places: int
):
    asked = space(asha, seeds=(0,))
    sweep = Sweeping(asked, tmp_path, bowl(optimum, edge=9 * optimum), places)
    (line,) = bracketed(tmp_path, sweep.play())
    found = found_on(line)
    assert abs(math.log(found.best / optimum)) <= math.log(1.52) / 2
    assert found.interior
    assert found.best / found.below <= 1.52
    assert found.above / found.best <= 1.52
    assert found.diverged >= 9 * optimum
    states = {value: each.state for value, each in line.points}
    assert states[found.best] == "done"
    assert "running" not in states.values()
    assert len(line.points) < 30


@settings(max_examples=12, deadline=None)
@given(
    asha=st.sampled_from(RULES),
    optimum=st.floats(1e-5, 0.2),
    room=st.floats(1.0, 30),
    noise=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 99),
)
def test_a_sweep_killed_at_any_moments_ends_as_one_that_was_not(
    tmp_path_factory, asha: Asha, optimum: float, room: float, noise: float, seed: int
):
    directory = tmp_path_factory.mktemp("killed")
    loss = bowl(optimum, edge=room * optimum, noise=noise)
    sweep = Sweeping(space(asha), directory, loss, draw=random.Random(seed))
    found = sweep.play_killed(0.2)
    (line,) = bracketed(directory, found)
    search = found.search
    assert isinstance(search, Bracket)
    assert found.next("d", read_events(directory / "ledger.jsonl")) is None
    assert not search.lacks(line) or len(line.points) == search.trials
    added = [each["combination"]["optim.lr"] for each in read_lines(directory / "added.jsonl")]
    assert len({*added, *COARSE}) == len(line.points) <= 30
    assert all(each["by"] == "search" for each in read_lines(directory / "added.jsonl"))


def test_the_same_arrivals_add_the_same_values(tmp_path: Path):
    added = []
    for name in ("one", "other"):
        directory = tmp_path / name
        Sweeping(space(RULES[3]), directory, bowl(3e-3, 0.1, noise=0.1)).play()
        added.append(read_lines(directory / "added.jsonl"))
    assert added[0] == added[1] != []


def test_a_limit_of_trials_and_the_highest_value_are_kept(tmp_path: Path):
    few = Bracket("optim.lr", trials=5)
    (line,) = bracketed(
        tmp_path / "a", Sweeping(space(search=few), tmp_path / "a", bowl(1, 9)).play()
    )
    assert [value for value, _ in line.points] == [1e-4, 1e-3, 1e-2, 0.1, 1.0]
    low = Bracket("optim.lr", highest=0.03)
    sweep = Sweeping(space(search=low), tmp_path / "b", bowl(5e-3, 9))
    (line,) = bracketed(tmp_path / "b", sweep.play())
    assert max(value for value, _ in line.points) == 0.03
    assert math.isnan(found_on(line).diverged)


def test_the_rate_is_bracketed_within_every_combination_of_the_other_axes(tmp_path: Path):
    axes: Axes = {
        "data.batch_size": [8, 32],
        "rate": Variants({"fixed": {}, "tuned": {}}),
        "optim.lr": [
            When({"data.batch_size": 8, "rate": "tuned"}, [1e-3, 2e-3]),
            When({"data.batch_size": 32, "rate": "tuned"}, [2e-3, 4e-3]),
        ],
    }
    optima = {8: 6e-4, 32: 2e-2}

    def loss(trial, share):
        best = optima[trial.run.data.batch_size]
        return bowl(best, 8 * best)(trial, share)

    found = Sweeping(space(Asha(1_048_576, 2), axes=axes), tmp_path, loss).play()
    there = bracketed(tmp_path, found)
    assert len(there) == 2, "the fixed rates are no lines"
    for line in there:
        best = optima[line.others["data.batch_size"]]
        assert line.others["rate"] == "tuned"
        assert abs(math.log(found_on(line).best / best)) <= math.log(1.52) / 2
    for each in found.combinations():
        assert list(each) == [name for name in axes if name in each]


def outcome(rate: float, state: str, loss: float = math.inf, tokens: int = 0) -> Outcome:
    return Outcome({"optim.lr": rate}, state, loss, tokens)


def test_what_got_further_is_better_and_what_failed_says_nothing():
    axes: Axes = {"optim.lr": COARSE}
    seen = [
        outcome(1e-4, "stopped", 3.0, 100),
        outcome(1e-3, "stopped", 4.0, 400),
        outcome(1e-2, "diverged"),
    ]
    search = Bracket("optim.lr", ratio=2)
    (line,) = lines(axes, "optim.lr", seen)
    assert found_on(line).best == 1e-3
    assert search.next(axes, seen) == {"optim.lr": 3.162e-3}
    (line,) = lines(axes, "optim.lr", [*seen, outcome(2e-4, "done", 4.5)])
    assert found_on(line).best == 2e-4
    failed = [*seen, outcome(3.162e-3, "failed")]
    (line,) = lines(axes, "optim.lr", failed)
    assert found_on(line).above == 1e-2
    assert search.next(axes, failed) == {"optim.lr": 3.162e-4}, "the gap on the other side"


def test_it_waits_for_the_grid_but_not_for_what_was_judged_or_added():
    axes: Axes = {"optim.lr": COARSE}
    search = Bracket("optim.lr", ratio=2)
    known = [outcome(1e-4, "done", 5.0), outcome(1e-3, "done", 4.0)]
    assert search.next(axes, [*known, outcome(1e-2, "running")]) is None
    judged = [*known, outcome(1e-2, "running", 6.0, 100)]
    assert search.next(axes, judged) == {"optim.lr": 0.1}
    running = [*judged, outcome(0.1, "running")]
    assert search.next(axes, running) == {"optim.lr": 3.162e-3}


def test_it_need_not_go_up_to_where_runs_diverge(tmp_path: Path):
    search = Bracket("optim.lr", to_divergence=False)
    (line,) = bracketed(tmp_path, Sweeping(space(search=search), tmp_path, bowl(7e-4, 9)).play())
    assert max(value for value, _ in line.points) == 1e-2
    assert found_on(line).interior


def test_values_that_the_configuration_refuses_are_not_tried(tmp_path: Path):
    def loss(trial, share):
        return abs(math.log(trial.run.data.batch_size / 20)) + 3 - share

    axes: Axes = {"data.batch_size": [2, 8, 32]}
    search = Bracket("data.batch_size", ratio=1.5, highest=512)
    found = Sweeping(space(axes=axes, search=search), tmp_path, loss).play()
    tried = sorted(each["data.batch_size"] for each in found.combinations())
    assert tried == [2, 8, 16, 32, 128, 512]
    trained = space(axes=axes, search=Bracket("data.batch_size", highest=99))
    assert trained.next("d", []) is None


def test_a_line_on_which_all_diverged_goes_down():
    seen = [outcome(rate, "diverged") for rate in COARSE]
    assert Bracket("optim.lr").next({"optim.lr": COARSE}, seen) == {"optim.lr": 1e-5}


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"optim.beta1": [0.5, 0.9]}, "unknown key 'optim.lr'"),
        ({"optim.lr": [1e-3]}, "list two or more"),
        ({"optim.lr": LogUniform(1e-4, 1e-2)}, "begins with a list of values above 0"),
        ({"optim.lr": [1e-3, 0.7]}, "tries no optim.lr above 0.5"),
        (
            {"optim.lr": [1e-3, 1e-2], "optim.beta1": [When({"optim.lr": 1e-3}, [0.5])]},
            "optim.beta1 waits for some",
        ),
    ],
)
def test_axes_along_which_it_cannot_go_on_are_refused(axes: Axes, message: str):
    with pytest.raises(UsageError, match=message):
        Bracket("optim.lr", highest=0.5).check(axes)


def test_a_ratio_that_refines_nothing_is_refused():
    with pytest.raises(UsageError, match=r"ratio=1\.0 is not above 1"):
        Bracket("optim.lr", ratio=1.0)


def test_the_price_counts_what_may_be_added_on_each_line():
    axes: Axes = {"data.batch_size": [8, 32], "optim.lr": COARSE}
    assert len(grid(axes)) == 6
    assert Bracket("optim.lr", trials=10).most(axes) == 20
    assert Bracket("optim.lr", trials=2).most(axes) == 6
    assert space(search=Bracket("optim.lr", trials=10), axes=axes).most_combinations() == 20
