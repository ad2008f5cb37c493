import math

import pytest

from lmray.errors import UsageError
from lmray.sweeps.axes import Axes, Combination, LogUniform, Variants, When
from lmray.sweeps.ledger import Event
from lmray.sweeps.search import Outcome, Random, Sobol, Tpe, outcomes

AXES: Axes = {
    "variant": Variants({"baseline": {}, "tied": {"model.tied_embeddings": True}}),
    "optim.lr": LogUniform(1e-5, 1e-1),
    "optim.beta2": [When({"variant": "tied"}, [0.9, 0.95, 0.99])],
}


@pytest.mark.parametrize("search", [Random(64), Sobol(64)])
def test_a_design_is_the_same_each_time_and_fills_what_is_there(search: Random | Sobol):
    found = search.design(AXES)
    assert found == search.design(AXES)
    assert found != type(search)(64, seed=1).design(AXES)
    assert len(found) == 64
    for each in found:
        assert ("optim.beta2" in each) == (each["variant"] == "tied")
    assert {each.get("optim.beta2") for each in found} == {None, 0.9, 0.95, 0.99}


def test_sobol_leaves_no_gaps_along_any_axis():
    rates = sorted(math.log10(each["optim.lr"]) for each in Sobol(64).design(AXES))
    assert [math.floor(16 * (rate + 5) / 4.0001) for rate in rates[::4]] == list(range(16))


def test_a_design_tries_nothing_twice():
    assert len(Random(50).design({"optim.lr": [1e-3, 1e-2]})) == 2


@pytest.mark.parametrize("make", [lambda: Random(0), lambda: Sobol(0), lambda: Tpe(0)])
def test_a_search_of_nothing_is_refused(make):
    with pytest.raises(UsageError, match="trials=0 is below 1"):
        make()


def closed(kind, trial: str, **facts) -> Event:
    return Event(kind, trial, facts)


def test_a_combination_is_told_once_its_seeds_are_closed_as_their_mean():
    groups = [({"x": i}, (f"{i}a", f"{i}b")) for i in range(4)]
    events = [
        closed("done", "0a", loss=2.0, tokens=100),
        closed("done", "0b", loss=3.0, tokens=100),
        closed("done", "1a", loss=1.0, tokens=100),
        closed("stopped", "2a", loss=5.0, tokens=20),
        closed("stopped", "2b", loss=4.0, tokens=50),
        closed("done", "3a", loss=1.0, tokens=100),
        closed("diverged", "3b", loss=None, tokens=10),
    ]
    found = [(each.state, each.loss, each.tokens) for each in outcomes(groups, events)]
    assert found[0] == ("done", 2.5, 0)
    assert found[1][0] == "running"
    assert found[2] == ("stopped", 5.0, 20)
    assert found[3][0] == "diverged"


def test_a_paused_combination_is_told_as_cut_there_and_an_audit_is_not_told():
    groups = [({"optim.lr": 1e-3}, ["a", "b"])]
    events = [
        Event("paused", "a", {"loss": 4.0, "tokens": 10}),
        Event("stopped", "b", {"loss": 6.0, "tokens": 10}),
        Event("audited", "b", {"loss": 1.0, "tokens": 90, "status": "done"}),
    ]
    (found,) = outcomes(groups, events)
    assert (found.state, found.loss, found.tokens) == ("stopped", 5.0, 10)
    (found,) = outcomes(groups, [*events, Event("promoted", "a", {"past": 10})])
    assert found.state == "running"


def loss(combination: Combination) -> float:
    """A bowl with its bottom at 3e-3, deeper where the embeddings are tied."""
    bowl = (math.log10(combination["optim.lr"]) - math.log10(3e-3)) ** 2
    return 3 + bowl - (combination["variant"] == "tied")


def test_tpe_draws_near_the_good_and_follows_from_the_outcomes_alone():
    pytest.importorskip("optuna")
    search = Tpe(40, first=8)
    seen = [Outcome(each, "done", loss(each)) for each in search.design(AXES)]
    while (found := search.next(AXES, seen)) is not None:
        assert found == search.next(AXES, seen)
        seen.append(Outcome(found, "done", loss(found)))
    assert len(seen) == 40
    late = [each.loss for each in seen[-16:]]
    early = [each.loss for each in seen[:8]]
    assert sum(late) / len(late) < sum(early) / len(early) - 0.5
    assert min(each.loss for each in seen) < 2.1


def test_tpe_knows_what_is_running_stopped_diverged_or_beside_the_axes():
    pytest.importorskip("optuna")
    combination = {"variant": "tied", "optim.lr": 1e-3, "optim.beta2": 0.9}
    seen = [
        Outcome(combination, "running"),
        Outcome({**combination, "optim.lr": 1e-2}, "stopped", 4.0, 100),
        Outcome({**combination, "optim.lr": 2e-2}, "diverged"),
        Outcome({"variant": "baseline", "optim.lr": 0.5}, "done", 3.0),
    ]
    found = Tpe(9, first=2).next(AXES, seen)
    assert found is not None
    assert 1e-5 <= found["optim.lr"] <= 1e-1


def test_tpe_ends_when_nothing_new_is_left():
    pytest.importorskip("optuna")
    axes: Axes = {"optim.lr": [1e-3, 1e-2]}
    seen = [Outcome({"optim.lr": rate}, "done", rate) for rate in (1e-3, 1e-2)]
    assert Tpe(9, first=1).next(axes, seen) is None


def test_tpe_says_how_to_get_optuna(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'lmray\[optuna\]'"):
        Tpe(9, first=1).next({"optim.lr": [1e-3]}, [])
