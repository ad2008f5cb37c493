import itertools
import math
import random
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmray.config import BatchPhase, Budget, Data, Evaluation, Optim, Run, run_id
from lmray.errors import UsageError
from lmray.storage import append_line, read_lines
from lmray.sweeps.axes import Axes, Integer, LogUniform, Uniform, Variants
from lmray.sweeps.ledger import read_events
from lmray.sweeps.price import price
from lmray.sweeps.search import Outcome, Population, Sobol
from lmray.sweeps.space import TO_THE_END, Asha, Space, Trial
from lmray.sweeps.sweep_directory import add, addition, additions, is_closed, read_space
from tests.sweeps.search.landscape import Sweeping

SHARE = 1_048_576
RATES: Axes = {"optim.lr": LogUniform(1e-4, 1e-1)}


def base(generations: int = 4) -> Run:
    return Run(
        optim=Optim(schedule="constant"),
        budget=Budget(tokens=generations * SHARE),
        evaluation=Evaluation(interval_tokens=SHARE),
    )


def space(members: int = 6, generations: int = 4, axes: Axes = RATES, **changes: Any) -> Space:
    search = Population(members, generations, **changes)
    return Space("pbt", "", base(generations), axes, (0,), TO_THE_END, search)


def falling(trial: Trial, share: float) -> float | None:
    """The best rate falls with the tokens; a rate far above it diverges."""
    seen = trial.run.budget.tokens / SHARE
    off = math.log(trial.run.optim.lr / (2e-2 / seen))
    return None if off > 1.5 else 4 - 0.1 * seen + off * off


def simulated(members: int, generations: int, quantile: float, factor: float) -> list[list[dict]]:
    """The paper's truncation and perturbation, in a loop over members with a rate and an id."""
    asked = space(members, generations)
    population = []
    for point in Sobol(members).design(RATES):
        trial = run_id(asked.run_of({**point, "budget.tokens": SHARE, "seed": 0}), "d")
        population.append({"lr": point["optim.lr"], "parent": "none", "id": trial})
    history = [population]
    for number in range(1, generations):
        for member in population:
            off = math.log(member["lr"] / (2e-2 / number))
            member["loss"] = math.inf if off > 1.5 else off * off
        order = sorted(population, key=lambda member: member["loss"])
        few = min(math.ceil(quantile * members), members // 2)
        best = [member for member in order[:few] if member["loss"] < math.inf]
        born: list[dict] = []
        for place, member in enumerate(population):
            if member in order[members - few :] or member["loss"] == math.inf:
                draw = random.Random(f"0 {number} {place}")
                others = [each["parent_and_lr"] for each in born]
                others += [(each["id"], each["lr"]) for each in population]
                while True:
                    parent = draw.choice(best)
                    lr = parent["lr"] * draw.choice((factor, 1 / factor))
                    lr = min(max(float(f"{lr:.4g}"), 1e-4), 1e-1)
                    if (parent["id"], lr) not in others:
                        break
            else:
                parent, lr = member, member["lr"]
            values = {"optim.lr": lr, "begins_from": parent["id"], "seed": 0}
            run = asked.run_of({**values, "budget.tokens": (number + 1) * SHARE})
            child = {"lr": lr, "parent": parent["id"], "id": run_id(run, "d")}
            born.append({**child, "parent_and_lr": (parent["id"], lr)})
        population = born
        history.append(population)
    return history


def by_generation(found: Space) -> list[list[dict[str, Any]]]:
    born: dict[int, list[dict[str, Any]]] = {}
    for each in found.combinations():
        born.setdefault(each["budget.tokens"], []).append(each)
    return [born[tokens] for tokens in sorted(born)]


@pytest.mark.parametrize(("members", "quantile", "factor"), [(6, 0.25, 1.25), (9, 0.4, 2.0)])
@pytest.mark.parametrize("places", [1, 2, 20])
def test_a_sweep_is_the_population_of_a_plain_simulation(
    tmp_path: Path, members: int, quantile: float, factor: float, places: int
):
    asked = space(members, quantile=quantile, factor=factor)
    found = Sweeping(asked, tmp_path, falling, places, random.Random(places)).play()
    expected = simulated(members, 4, quantile, factor)
    for own, wanted in zip(by_generation(found), expected, strict=True):
        told = sorted((each["optim.lr"], each.get("begins_from", "none")) for each in own)
        assert told == sorted((each["lr"], each["parent"]) for each in wanted)
    assert {each["id"] for each in itertools.chain(*expected)} == {t.id for t in found.trials("d")}
    assert is_closed(tmp_path, found, "d")


def test_the_population_gathers_where_the_losses_are_low(tmp_path: Path):
    born = by_generation(Sweeping(space(8, 8, factor=1.5), tmp_path, falling).play())
    off = [[abs(math.log(each["optim.lr"] / (2e-2 / 8))) for each in g] for g in born]
    assert statistics.median(off[-1]) < 0.5 * statistics.median(off[0])


def test_wherever_the_ledger_was_cut_the_same_is_decided(tmp_path: Path):
    asked = space(4, 3)
    whole = Sweeping(asked, tmp_path / "whole", falling, draw=random.Random(3)).play()
    events = (tmp_path / "whole" / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    lines = read_lines(tmp_path / "whole" / "added.jsonl")
    first = len(whole.combinations()) - len(lines)
    order = [trial.id for trial in whole.trials("d")]
    for cut in range(1, len(events) + 1):
        directory = tmp_path / str(cut)
        directory.mkdir()
        shutil.copy(tmp_path / "whole" / "sweep.json", directory)
        (directory / "ledger.jsonl").write_bytes(b"".join(events[:cut]) + b'{"event":"do')
        begun = {event.trial for event in read_events(directory / "ledger.jsonl")}
        for line in lines[: max(0, max(map(order.index, begun)) + 1 - first)]:
            append_line(directory / "added.jsonl", line)
        again = Sweeping(asked, directory, falling, places=3, draw=random.Random(cut)).play()
        assert again.added == whole.added, f"cut after line {cut}"


def test_killed_again_and_again_it_decides_the_same(tmp_path: Path):
    asked = space(5, 4, factor=1.5)
    whole = Sweeping(asked, tmp_path / "whole", falling).play()
    killed = Sweeping(asked, tmp_path / "killed", falling, 3, random.Random(2)).play_killed(0.5)
    assert killed.added == whole.added


AXES: Axes = {
    "optim.lr": LogUniform(1e-3, 1e-2),
    "optim.weight_decay": Uniform(0.0, 0.2),
    "optim.beta2": [0.9, 0.95, 0.99],
}
ENDS = st.one_of(
    st.floats(1, 9).map(lambda loss: ("done", loss)),
    st.sampled_from([("diverged", math.inf), ("failed", math.inf)]),
)


def ended(ends: Sequence[tuple[str, float]], number: int = 1) -> list[Outcome]:
    points = Sobol(len(ends), seed=7).design(AXES)
    return [
        Outcome({**point, "budget.tokens": number * SHARE}, state, loss, trials=(f"{place:012x}",))
        for place, (point, (state, loss)) in enumerate(zip(points, ends, strict=True))
    ]


@settings(max_examples=60)
@given(st.lists(ENDS, min_size=2, max_size=9), st.floats(0.05, 0.5), st.integers(0, 99))
def test_the_worst_take_over_the_best_and_the_others_go_on(
    ends: list[tuple[str, float]], quantile: float, seed: int
):
    parents = ended(ends, number=3)
    search = Population(len(ends), 5, quantile, seed=seed)
    members = search.generation(AXES, parents, 3)
    assert members == search.generation(AXES, parents, 3)
    done = [each for each in parents if each.state == "done"]
    assert len(members) == (len(parents) if done else 0)
    few = min(math.ceil(quantile * len(ends)), len(ends) // 2)
    ranked = sorted(done, key=lambda each: each.loss)
    best = {each.trials[0] for each in ranked[:few]}
    safe = {each.trials[0] for each in ranked[: len(ends) - few]}
    values = {each.trials[0]: {k: each.combination[k] for k in AXES} for each in parents}
    assert len({str(sorted(each.items())) for each in members}) == len(members)
    for parent, member in zip(parents, members, strict=False):
        begun = member["begins_from"]
        assert member["budget.tokens"] == 4 * SHARE
        if parent.trials[0] in safe:
            assert member == {
                **parent.combination,
                "budget.tokens": 4 * SHARE,
                "begins_from": begun,
            }
            assert begun == parent.trials[0]
            continue
        assert begun in best
        for key in ("optim.lr", "optim.weight_decay"):
            axis, old = AXES[key], values[begun][key]
            moved = [min(max(old * by, axis.low), axis.high) for by in (1.25, 0.8)]  # pyrefly: ignore
            assert any(member[key] == pytest.approx(each, rel=1e-3) for each in moved)
        assert member["optim.beta2"] in (0.9, 0.95, 0.99)


def test_whole_numbers_stay_whole_and_within_their_bounds():
    axes: Axes = {"optim.beta1": Integer(1, 3)}
    outcomes = [
        Outcome({"optim.beta1": value, "budget.tokens": SHARE}, "done", value, trials=(str(value),))
        for value in (3, 1, 2)
    ]
    members = Population(3, 2, 0.3, factor=2.0).generation(axes, outcomes, 1)
    assert [each["optim.beta1"] for each in members] == [2, 1, 2]
    assert [each["begins_from"] for each in members] == ["1", "1", "2"]


def test_where_nothing_new_is_to_be_had_a_member_goes_on_and_a_dead_place_stays_empty():
    # Both ends of the axis are within a factor of ten, so the copy would be the parent itself.
    axes: Axes = {"optim.beta1": [0.9]}
    search = Population(2, 2, factor=10)
    alive = [
        Outcome({"optim.beta1": 0.9, "budget.tokens": SHARE}, "done", loss, trials=(str(loss),))
        for loss in (1, 2)
    ]
    assert [each["begins_from"] for each in search.generation(axes, alive, 1)] == ["1", "2"]
    dead = [alive[0], Outcome(alive[1].combination, "diverged", trials=("2",))]
    assert [each["begins_from"] for each in search.generation(axes, dead, 1)] == ["1"]
    assert search.generation(axes, [dead[1], dead[1]], 1) == []


def test_a_sweep_whose_members_all_diverged_ends(tmp_path: Path):
    found = Sweeping(space(3), tmp_path, lambda trial, share: None).play()
    assert found.added == ()
    assert is_closed(tmp_path, found, "d")


def test_a_run_that_a_user_adds_trains_alone_to_the_budget(tmp_path: Path):
    sweep = Sweeping(space(4, 3), tmp_path, falling)
    sweep.machine()
    asked = read_space(tmp_path)[0]
    add(tmp_path, addition(asked, {"optim.lr": 3e-3}), by="user", after=0)
    found = sweep.play()
    alone = [trial for trial in found.trials("d") if "budget.tokens" not in trial.changes]
    assert [each.run.budget.tokens for each in alone] == [3 * SHARE]
    undisturbed = Sweeping(space(4, 3), tmp_path / "without", falling).play()
    assert [each for each in additions(tmp_path) if "begins_from" in each] == list(
        undisturbed.added
    )


def test_the_price_is_that_of_members_who_each_train_the_budget_once():
    asked = space(6, 4)
    found = price(asked, 10_000, tokens_per_s=1e6, at_once=2)
    assert (found.trials, found.tokens) == (24, 6 * 4 * SHARE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (0, 1)}, r"2 seeds.* set SEEDS = \[0\]"),
        ({"asha": Asha(SHARE)}, "set ASHA = TO_THE_END"),
        ({"axes": {"model.d_model": [64, 128]}}, r"varies model\.d_model, which a run that begins"),
        ({"axes": {"optim.name": ["adamw", "sgd"]}}, r"varies optim\.name"),
        ({"axes": {"v": Variants({"a": {"data.batch_size": 64}})}}, r"varies data\.batch_size"),
        ({"base": Run(budget=Budget(tokens=4 * SHARE))}, r"set optim\.schedule=constant"),
        ({"budget": Budget(tokens=4 * SHARE, seconds=60.0)}, r"has budget\.seconds too; drop that"),
        ({"data": Data(batch_ramp=(BatchPhase(share=0.1, batch_size=64),))}, "a ramp of data"),
        ({"begins_from": "0" * 12}, "the base has begins_from"),
        ({"budget": Budget(tokens=4 * SHARE + 32_768)}, "make it a multiple of 131072"),
    ],
)
def test_what_a_population_cannot_be_is_refused(changes: dict[str, Any], message: str):
    asked: dict[str, Any] = {"base": base(), "axes": RATES, "seeds": (0,), "asha": TO_THE_END}
    asked |= {key: value for key, value in changes.items() if key in asked}
    sections = {key: value for key, value in changes.items() if key not in asked}
    asked["base"] = asked["base"].model_copy(update=sections)
    with pytest.raises(UsageError, match=message):
        Space("pbt", "", search=Population(4, 4), **asked)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": 1}, "two or more of each"),
        ({"generations": 1}, "two or more of each"),
        ({"quantile": 0.6}, "not above 0 and at most 0.5"),
        ({"quantile": 0.0}, "not above 0 and at most 0.5"),
        ({"factor": 1.0}, "not above 1"),
    ],
)
def test_parameters_out_of_range_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        Population(**{"members": 4, "generations": 4, **changes})


def test_a_space_comes_back_from_its_facts(tmp_path: Path):
    asked = space(4, 3, quantile=0.5)
    assert Space.from_facts(asked.facts()) == asked
