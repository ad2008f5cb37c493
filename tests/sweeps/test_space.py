import json
from dataclasses import replace
from pathlib import Path

import pytest

from lmray.config import Budget, Evaluation, Run, override
from lmray.errors import PreflightError, UsageError
from lmray.sweeps.axes import LogUniform, Variants, When
from lmray.sweeps.constraints import memory_needed, memory_refusal
from lmray.sweeps.ledger import Event
from lmray.sweeps.search import Sobol, Tpe
from lmray.sweeps.space import TO_THE_END, Asha, Space
from lmray.sweeps.sweep_directory import (
    StopFile,
    add,
    addition,
    begin,
    claim,
    is_closed,
    read_space,
)
from lmray.sweeps.turns import Turns
from lmray.training.gpu_share import CONTEXT_BYTES

BASE = Run(budget=Budget(tokens=10_485_760), evaluation=Evaluation(interval_tokens=1_048_576))


def space(**changes) -> Space:
    facts = {
        "name": "test",
        "hypothesis": "",
        "base": BASE,
        "axes": {"optim.lr": [1e-3, 1e-2], "data.batch_size": [32, 64]},
        "seeds": (0, 1, 2),
        "asha": Asha(grace_tokens=1_048_576, reduction_factor=2),
    }
    return Space(**{**facts, **changes})


def test_every_combination_with_every_seed_is_a_trial_that_differs_in_just_that():
    trials = space().trials("digest")
    assert len({trial.id for trial in trials}) == len(trials) == 12
    for trial in trials:
        assert trial.run == override(BASE, trial.changes)
    seen = {tuple(trial.changes.values()) for trial in trials}
    assert seen == {(lr, b, s) for lr in (1e-3, 1e-2) for b in (32, 64) for s in (0, 1, 2)}


def test_the_order_of_trials_is_always_the_same():
    assert space().trials("d") == space().trials("d")


def test_rungs_are_powers_of_eta_below_the_budget():
    assert Asha(100, 3).rungs(2700) == (100, 300, 900)
    assert Asha(100, 3).rungs(2701) == (100, 300, 900, 2700)
    assert Asha(100, 2).rungs(100) == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": {}}, "tries no values"),
        ({"axes": {"optim.lr": []}}, "tries no values"),
        ({"axes": {"optim.lr": [1e-3, 0.001]}}, "tries optim.lr=0.001 twice"),
        ({"axes": {"seed": [1]}}, "list the seeds in SEEDS"),
        ({"axes": {"optim.lrr": [1]}}, "did you mean optim.lr"),
        ({"axes": {"optim.lr": [1e-3, 7.0]}}, "optim.lr=7.0"),
        ({"seeds": ()}, "has no seeds"),
        ({"seeds": (0, 0)}, "has seed 0 twice"),
        ({"memory_gb": 1e-3}, "has every combination refused"),
        ({"baseline": {"optim.lr": 0.5}}, "no combination has the BASELINE"),
        ({"search": Tpe(9), "refuse": lambda run: ""}, "search by Sobol, or drop"),
        ({"axes": {"optim.lr": LogUniform(1e-4, 1e-2)}}, "cannot be listed for a grid"),
        ({"asha": Asha(1_500_000)}, "is not a multiple of evaluation.interval_tokens"),
        ({"asha": Asha(524_288)}, "is not a multiple of evaluation.interval_tokens"),
        ({"axes": {"data.batch_size": [32, 96]}}, "multiple of the tokens of a step=24576"),
        ({"axes": {"optim.warmup_fraction": [0.05, 0.2]}}, "lies within the warm-up of 2097152"),
    ],
)
def test_a_bad_space_is_refused_when_it_is_made(changes: dict, message: str):
    with pytest.raises(UsageError, match=message):
        space(**changes)


@pytest.mark.parametrize(("grace", "eta"), [(0, 3), (100, 1)])
def test_asha_that_cannot_stop_anything_is_refused(grace: int, eta: int):
    with pytest.raises(UsageError, match=r"below (1|2)"):
        Asha(grace, eta)


def test_overrides_change_the_base_but_not_what_is_varied():
    changed = space().with_overrides({"model.d_model": 256})
    assert changed.base.model.d_model == 256
    with pytest.raises(UsageError, match="is what space test varies"):
        space().with_overrides({"optim.lr": 1e-3})
    with pytest.raises(UsageError, match="is what space test varies"):
        space().with_overrides({"seed": 1})


def test_overrides_change_the_rungs_too():
    changed = space().with_overrides({"asha.mode": "promote", "asha.min_results": 3})
    assert changed.asha == Asha(1_048_576, 2, "promote", 3)
    assert changed.base == BASE
    with pytest.raises(UsageError, match=r"unknown key 'asha.modes'.*did you mean asha.mode"):
        space().with_overrides({"asha.modes": "stop"})
    with pytest.raises(UsageError, match="mode='prom' is none of stop, promote, none"):
        space().with_overrides({"asha.mode": "prom"})


def test_losers_keep_what_the_space_says():
    assert space().losers == "best"
    assert Space.from_facts(space(losers="nothing").facts()).losers == "nothing"
    facts = space().facts()
    del facts["losers"]
    assert Space.from_facts(facts).losers == "all", "a sweep of before there was a choice"
    with pytest.raises(UsageError, match="LOSERS='some' is none of all, best, nothing"):
        space(losers="some")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"search": Sobol(8, seed=3), "axes": {"optim.lr": LogUniform(1e-4, 1e-1)}},
        {"axes": {"variant": Variants({"a": {}, "b": {"optim.lr": 0.5}})}},
        {"memory_gb": 16.0, "axes": {"data.batch_size": [1, 4096]}},
        {"refuse": lambda run: "odd" if run.data.batch_size > 32 else ""},
    ],
)
def test_facts_make_the_same_space_again(changes: dict):
    first = space(**changes)
    again = Space.from_facts(json.loads(json.dumps(first.facts())))
    assert again.trials("d") == first.trials("d")
    assert again.refusals() == first.refusals()


def test_a_sweep_of_before_there_were_searches_is_a_grid():
    facts = space().facts()
    for key in ("search", "baseline", "memory_gb", "refused"):
        del facts[key]
    assert Space.from_facts(facts).trials("d") == space().trials("d")


def test_what_does_not_fit_or_the_user_refuses_is_listed_and_not_tried():
    found = space(
        axes={"data.batch_size": [1, 8, 4096]},
        memory_gb=16.0,
        refuse=lambda run: "eight is too many" if run.data.batch_size == 8 else "",
    )
    assert [each["data.batch_size"] for each in found.combinations()] == [1]
    reasons = {each.combination["data.batch_size"]: each.reason for each in found.refusals()}
    assert reasons[8] == "eight is too many"
    assert "GB by accounting and there are 16" in reasons[4096]
    fits = found.run_of({"data.batch_size": 4096, "execution.micro_batch": 1})
    assert memory_refusal(fits, 16.0) == "", "a batch computed in parts takes the memory of one"


def test_a_share_of_a_gpu_has_that_share_of_its_memory():
    shared = override(BASE, {"execution.gpu_share": 0.5})
    needed = memory_needed(BASE) / 1e9
    assert memory_refusal(BASE, 1.01 * needed) == ""
    assert "GB by accounting and there are" in memory_refusal(shared, 2 * needed)
    assert memory_refusal(shared, 2 * (1.01 * needed + CONTEXT_BYTES / 1e9)) == ""


def test_equal_runs_under_two_names_are_one_trial():
    axes = {
        "rate": Variants({"fixed": {}, "tuned": {}}),
        "optim.lr": [When({"rate": "tuned"}, [1e-3, 1e-2])],
    }
    found = space(axes=axes, seeds=(0,))
    assert BASE.optim.lr == 1e-3
    assert len(found.asked("d")) == 3
    assert len(found.trials("d")) == 2


def test_a_search_goes_on_from_the_ledger_until_its_trials_are_used_up():
    pytest.importorskip("optuna")
    search = Tpe(5, first=2)
    found = space(axes={"optim.lr": LogUniform(1e-4, 1e-1)}, seeds=(0, 1), search=search)
    events: list[Event] = []
    while (combination := found.next("d", events)) is not None:
        assert found.next("d", events) == combination
        found = replace(found, added=(*found.added, combination))
        events = [
            Event("done", trial.id, {"loss": trial.run.optim.lr, "tokens": 1})
            for trial in found.trials("d")
        ]
    assert len(found.combinations()) == 5
    assert len(found.trials("d")) == 10


def test_trials_come_in_turn_and_what_is_added_comes_too_until_a_stop(tmp_path: Path):
    question = space(axes={"optim.lr": [1e-3, 1e-2]}, seeds=(0,))
    claim(tmp_path, question, "d")
    stop: list[str] = []
    turns = Turns(question, "d", tmp_path, lambda: bool(stop))
    taken = iter(turns)
    first = [next(taken), next(taken)]
    assert first == question.trials("d")
    add(tmp_path, addition(question, {"optim.lr": 0.5}), by="user", after=0)
    assert next(taken).changes == {"optim.lr": 0.5, "seed": 0}
    assert next(taken, None) is None
    assert len(list(turns)) == 3, "they can be looked through again"
    add(tmp_path, addition(question, {"optim.lr": 0.25}), by="user", after=1)
    assert len(list(turns)) == 4
    found, _ = read_space(tmp_path)
    assert found.trials("d") == turns.trials()
    assert found.trials("d")[:2] == first, "what was asked before keeps its order"
    stop.append("now")
    assert list(turns) == []


def test_a_stop_file_is_seen_until_the_next_life_begins(tmp_path: Path):
    assert not StopFile.of(tmp_path)()
    StopFile.of(tmp_path).ask()
    assert StopFile.of(tmp_path)()
    begin(tmp_path)
    assert not StopFile.of(tmp_path)()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optim.lr": 1e-3, "data.batch_size": 32}, "is tried already"),
        ({"optim.beta1": 0.5}, "unknown key"),
        ({"optim.lr": 7.0}, "optim.lr=7.0"),
        ({"data.batch_size": 96}, "multiple of the tokens of a step=24576"),
    ],
)
def test_what_cannot_be_added_is_refused(values: dict, message: str):
    with pytest.raises(UsageError, match=message):
        addition(space(), values)


def test_a_sweep_directory_is_for_one_question_of_one_dataset(tmp_path: Path):
    claim(tmp_path, space(), "digest")
    claim(tmp_path, space(), "digest")
    moved = space().with_overrides({"data.tokens": "elsewhere", "execution.threads": 1})
    claim(tmp_path, replace(moved, hypothesis="other words"), "digest")
    found, digest = read_space(tmp_path)
    assert digest == "digest"
    assert found.trials(digest) == space().trials(digest)
    with pytest.raises(PreflightError, match="not the same data"):
        claim(tmp_path, space(), "other")
    with pytest.raises(PreflightError, match="not the same seeds"):
        claim(tmp_path, space(seeds=(0,)), "digest")
    with pytest.raises(PreflightError, match="not the same base"):
        claim(tmp_path, space().with_overrides({"model.d_model": 256}), "digest")
    assert not is_closed(tmp_path, space(), "digest")


def test_without_early_stopping_no_rung_has_to_fit():
    free = space(asha=TO_THE_END, axes={"data.batch_size": [32, 96]})
    assert free.asha.rungs(free.base.budget.tokens) == ()
    assert Space.from_facts(free.facts()).asha == TO_THE_END


@pytest.mark.parametrize(
    "changes", [{"mode": "sotp"}, {"min_results": 0}, {"timeout_s": 0.0}], ids=str
)
def test_a_rule_that_means_nothing_is_refused(changes: dict):
    with pytest.raises(UsageError, match=next(iter(changes))):
        Asha(100, **changes)


def test_a_sweep_is_the_same_whatever_its_timeout_but_not_under_another_rule(tmp_path: Path):
    claim(tmp_path, space(), "digest")
    claim(tmp_path, space(asha=replace(space().asha, timeout_s=5.0)), "digest")
    with pytest.raises(PreflightError, match="not the same asha"):
        claim(tmp_path, space(asha=replace(space().asha, mode="promote")), "digest")


def test_rungs_in_tokens_are_refused_where_steps_or_seconds_end_runs_before_them():
    asha = Asha(grace_tokens=1_048_576, reduction_factor=2)  # the last rung: 8,388,608 tokens
    axes = {"data.batch_size": [32, 64, 128]}
    at = 8_388_608 // (BASE.model.context_length * 64)
    with pytest.raises(UsageError, match=r"with data\.batch_size=64 at .* not beyond the rung of"):
        space(base=override(BASE, {"budget.steps": at}), axes=axes, asha=asha)
    fewer = {"data.batch_size": [64, 128]}
    with pytest.raises(UsageError, match=r"with data\.batch_size=64 at 8388608 tokens"):
        space(base=override(BASE, {"budget.steps": at}), axes=fewer, asha=asha)
    space(base=override(BASE, {"budget.steps": 2 * at + 1}), axes=axes, asha=asha)
    space(base=override(BASE, {"budget.steps": at}), axes=axes, asha=TO_THE_END)
    timed = override(BASE, {"budget.seconds": 60.0})
    with pytest.raises(UsageError, match=r"budget\.seconds=60 ends each run at other tokens"):
        space(base=timed, axes=axes, asha=asha)
    space(base=timed, axes=axes, asha=TO_THE_END)


def test_a_rung_that_a_growing_batch_steps_over_is_refused():
    # 100 steps of 8,192 tokens begin; those of 24,576 that follow pass by every power of two.
    ramp = {"data.batch_ramp": [{"share": 0.078125, "batch_size": 32}], "data.batch_size": 96}
    with pytest.raises(UsageError, match="no step of a run whose batches grow ends at the rung"):
        space(base=override(BASE, ramp), axes={"optim.lr": [1e-3, 1e-2]})
