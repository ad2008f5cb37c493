"""The rule at a rung, against other ways to say it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.sweeps.decisions.asha import Asha
from lmray.sweeps.decisions.halving import Halving
from lmray.sweeps.ledger import Event

LOSSES = st.lists(st.one_of(st.floats(0, 10), st.sampled_from([1.0, math.inf, math.nan])))


def may_go_on(loss: float, earlier: list[float], eta: int, least: int) -> bool:
    """Mode stop said another way: fewer than n // eta earlier losses are as good or better."""
    n = len(earlier) + 1
    if not math.isfinite(loss):
        return False
    return n < max(eta, least) or sum(other <= loss for other in earlier) < n // eta


def arrive(rule: Halving, trial: str, loss: float, level: int = 100) -> str:
    verdict = rule.verdict(trial, level, loss)
    plain = loss if math.isfinite(loss) else None
    rule.apply(Event("started", trial, {}))
    rule.apply(Event(verdict, trial, {"rung": level, "loss": plain}))
    return verdict


@given(losses=LOSSES, eta=st.integers(2, 5), least=st.integers(1, 7))
def test_stopping_lets_the_best_so_far_go_on(losses: list[float], eta: int, least: int):
    rule = Halving(Asha(100, eta, min_results=least), 150)
    for i, loss in enumerate(losses):
        verdict = arrive(rule, str(i), loss)
        assert (verdict == "rung") == may_go_on(loss, losses[:i], eta, least)
        assert (verdict == "diverged") == (not math.isfinite(loss))


@given(losses=LOSSES, eta=st.integers(2, 5), least=st.integers(1, 7))
def test_promoting_lets_those_past_who_are_among_the_best_of_all_that_have_come(
    losses: list[float], eta: int, least: int
):
    rule = Halving(Asha(100, eta, "promote", least), 150)
    passed: set[str] = set()
    for i, loss in enumerate(losses):
        if arrive(rule, str(i), loss) == "rung":
            passed.add(str(i))
        while found := rule.promotable():
            assert found[1] == 100
            rule.apply(Event("promoted", found[0], {"past": 100}))
            passed.add(found[0])
        n = i + 1
        # The paper's top k, ties by arrival; k grows with n, so who was in it stays or has passed.
        order = sorted((x if math.isfinite(x) else math.inf, j) for j, x in enumerate(losses[:n]))
        top = {str(j) for x, j in order[: n // eta] if x < math.inf}
        if n >= max(eta, least):
            assert top <= passed
        else:
            assert not passed


def test_a_worked_example_of_stopping():
    rule = Halving(Asha(100, 3), 150)
    verdicts = [arrive(rule, str(i), x) for i, x in enumerate([5.0, 4.0, 4.5, 3.0, 3.5, 2.0, 2.5])]
    # Two go on untold; the third must be the best of three; from six on two of them may.
    goes, stops = "rung", "stopped"
    assert verdicts == [goes, goes, stops, goes, stops, goes, goes]


@given(
    arrivals=st.lists(st.tuples(st.integers(0, 5), st.floats(0, 10)), max_size=40),
    eta=st.integers(2, 4),
    least=st.integers(1, 4),
)
def test_the_highest_rung_that_can_tell_judges_a_trial(
    arrivals: list[tuple[int, float]], eta: int, least: int
):
    """Six trials that climb in any order: the rule said over again with lists."""
    asha = Asha(100, eta, min_results=least)
    rule = Halving(asha, 100 * eta**3)
    rungs: list[list[tuple[float, int, int]]] = [[], [], []]
    climbed, out = dict.fromkeys(range(6), 0), set()
    for when, (trial, loss) in enumerate(arrivals):
        at = climbed[trial]
        if trial in out or at == 3:
            continue
        rungs[at].append((loss, when, trial))
        wanted = "rung"
        for rung in reversed(rungs[: at + 1]):
            if len(rung) >= max(eta, least):
                best = [who for _, _, who in sorted(rung)[: len(rung) // eta]]
                racing = any(climbed[who] > 0 and who not in out for who in best)
                wanted = "stopped" if trial not in best and racing else "rung"
                break
        assert arrive(rule, str(trial), loss, rule.levels[at]) == wanted
        climbed[trial] += 1
        if wanted == "stopped":
            out.add(trial)


def test_who_came_first_and_is_bad_is_stopped_once_others_have_come():
    rule = Halving(Asha(100, 2), 500)
    assert arrive(rule, "bad", 9.0) == "rung"  # there is nobody to compare it with
    assert arrive(rule, "good", 3.0) == "rung"
    assert arrive(rule, "worse", 5.0) == "stopped"
    assert arrive(rule, "bad", 8.0, 200) == "stopped"  # alone here, but the last below
    assert arrive(rule, "good", 2.5, 200) == "rung"


def test_nobody_makes_room_for_those_who_have_left_the_race():
    rule = Halving(Asha(100, 2), 900)
    arrive(rule, "a", 5.0)
    arrive(rule, "a", 4.0, 200)
    arrive(rule, "b", 3.0)
    assert arrive(rule, "c", 9.0) == "stopped"
    assert arrive(rule, "a", 1.0, 400) == "stopped"  # alone there and at 200; behind b at 100
    assert arrive(rule, "b", 4.5, 200) == "rung"  # behind a, which is gone
    assert arrive(rule, "b", 3.5, 400) == "rung"


def test_a_worked_example_of_promoting():
    rule = Halving(Asha(100, 2, "promote"), 500)
    assert arrive(rule, "a", 5.0) == "paused"
    assert arrive(rule, "b", 6.0) == "paused"
    assert rule.promotable() == ("a", 100)  # one of two
    rule.apply(Event("promoted", "a", {"past": 100}))
    assert arrive(rule, "c", 4.0) == "rung"  # the best of three needs no pause
    assert rule.promotable() is None
    assert arrive(rule, "a", 4.5, 200) == "paused"
    assert arrive(rule, "c", 4.6, 200) == "paused"
    assert arrive(rule, "d", 5.5) == "paused"  # a is promotable at a higher rung, and goes first
    assert rule.promotable() == ("a", 200)


def test_the_last_resort_is_the_best_of_the_highest_rung_while_none_is_done():
    rule = Halving(Asha(100, 4, "promote"), 500)
    for trial, loss in (("a", 3.0), ("b", 2.0), ("c", 2.0)):
        arrive(rule, trial, loss)
    assert rule.promotable() is None
    assert rule.last_resort() == ("b", 100)
    rule.apply(Event("promoted", "b", {"past": 100}))
    rule.apply(Event("done", "b", {}))
    assert rule.last_resort() is None


def test_equal_losses_rank_by_arrival():
    rule = Halving(Asha(100, 2, "promote"), 150)
    arrive(rule, "late", 1.0)
    arrive(rule, "early", 1.0)
    assert rule.promotable() == ("late", 100)


def test_diverged_trials_count_as_results_and_are_never_promoted():
    rule = Halving(Asha(100, 2, "promote"), 150)
    for trial in "abcd":
        assert arrive(rule, trial, math.nan) == "diverged"
    assert rule.promotable() is None
    assert arrive(rule, "e", 9.0) == "rung"  # the best of five


@pytest.mark.parametrize(
    ("changes", "levels"),
    [({}, (100, 300)), ({"mode": "none"}, ()), ({"reduction_factor": 2}, (100, 200, 400, 800))],
)
def test_rungs_are_powers_of_eta_below_the_budget(changes: dict, levels: tuple[int, ...]):
    assert Halving(Asha(100, **changes), 900).levels == levels
