from dataclasses import replace
from pathlib import Path

import pytest

from lmray.config import Budget, Evaluation, Run, override
from lmray.errors import PreflightError, UsageError
from lmray.experiments.space import Asha, Space
from lmray.experiments.space_file import load_space, shipped_spaces
from lmray.experiments.sweep_directory import claim, is_closed, read_space

BASE = Run(budget=Budget(tokens=10_000_000), evaluation=Evaluation(interval_tokens=1_000_000))


def space(**changes) -> Space:
    facts = {
        "name": "test",
        "hypothesis": "",
        "base": BASE,
        "axes": {"optim.lr": [1e-3, 1e-2], "data.batch_size": [32, 64]},
        "seeds": (0, 1, 2),
        "asha": Asha(grace_tokens=1_000_000, reduction_factor=2),
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
        ({"asha": Asha(1_500_000)}, "is not a multiple of evaluation.interval_tokens"),
        ({"asha": Asha(500_000)}, "is not a multiple of evaluation.interval_tokens"),
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


def test_facts_make_the_same_space_again():
    assert Space.from_facts(space().facts()).trials("d") == space().trials("d")


@pytest.mark.parametrize("name", sorted(shipped_spaces()))
def test_every_shipped_space_loads_with_a_hypothesis(name: str):
    loaded = load_space(name)
    assert "Hypothesis:" in loaded.hypothesis
    assert loaded.asha.rungs(loaded.base.budget.tokens)
    assert loaded.trials("digest")


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


GOOD = """'''Hypothesis: none.'''
from lmray.presets import tiny
from lmray.experiments.space import Asha
BASE = tiny()
SPACE = {"optim.lr": [1e-3]}
SEEDS = [0]
ASHA = Asha(131_072)
"""


def test_a_space_of_ones_own_loads(tmp_path: Path):
    assert load_space(write(tmp_path / "mine.py", GOOD)).name == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SPACE = {", "does not run: SyntaxError"),
        ("import nothing_here", "does not run: ModuleNotFoundError"),
        (GOOD.replace("SEEDS", "SEED"), "does not define SEEDS"),
        (GOOD.replace("optim.lr", "optim.lrr"), "did you mean optim.lr"),
    ],
)
def test_a_broken_space_file_is_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(UsageError, match=message):
        load_space(write(tmp_path / "mine.py", text))


def test_an_unknown_space_names_those_there_are():
    with pytest.raises(UsageError, match=r"name a Python file or one of learning_rate, quickstart"):
        load_space("lerning_rate")


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
