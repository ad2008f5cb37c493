import math
import random
from pathlib import Path

import pytest

from lmray.errors import UsageError
from lmray.sweeps.ledger import read_events
from lmray.sweeps.search import Bisect
from lmray.sweeps.search.bisection import edge
from lmray.sweeps.search.lines import lines
from lmray.sweeps.space import TO_THE_END, Asha, Space
from tests.sweeps.search.landscape import BASE, Sweeping, bowl

RATES = [1e-3, 1e-2]


def space(search: Bisect, seeds: tuple[int, ...] = (0,)) -> Space:
    return Space("edge", "", BASE, {"optim.lr": RATES}, seeds, TO_THE_END, search)


@pytest.mark.parametrize("where", [3e-5, 1.3e-3, 4e-3, 0.11, 0.77])
def test_the_gap_at_the_edge_is_within_the_ratio_also_when_killed(tmp_path: Path, where: float):
    sweep = Sweeping(space(Bisect("optim.lr", 1.1)), tmp_path, bowl(0.3 * where, edge=where))
    sweep.draw = random.Random(1)
    found = sweep.play_killed(0.3)
    events = read_events(tmp_path / "ledger.jsonl")
    (line,) = lines(found.axes, "optim.lr", found.outcomes("d", events))
    stable, diverged = edge([(value, each.state) for value, each in line.points])
    assert stable <= where < diverged
    assert diverged / stable <= 1.1
    assert found.next("d", events) is None


def test_each_seed_has_an_edge_within_the_ratio(tmp_path: Path):
    where = (0.02, 0.01, 0.3)

    def loss(trial, share):
        return bowl(1e-3, edge=where[trial.run.seed])(trial, share)

    sweep = Sweeping(space(Bisect("optim.lr", 1.2), (0, 1, 2)), tmp_path, loss)
    found = sweep.play()
    outcomes = found.outcomes("d", read_events(tmp_path / "ledger.jsonl"))
    (line,) = lines(found.axes, "optim.lr", outcomes)
    for seed, edge_of in enumerate(where):
        stable, diverged = edge([(value, each.seeds[seed]) for value, each in line.points])
        assert stable <= edge_of < diverged <= 1.2 * stable


def test_without_divergence_it_ends_at_the_highest_rate_or_its_trials(tmp_path: Path):
    found = Sweeping(space(Bisect("optim.lr")), tmp_path / "a", bowl(1e-3, 9)).play()
    assert max(each["optim.lr"] for each in found.combinations()) == 1.0
    few = Sweeping(space(Bisect("optim.lr", trials=3)), tmp_path / "b", bowl(1e-3, 0.3)).play()
    assert len(few.combinations()) == 3


def test_the_edge_lies_below_the_smallest_that_diverged_whatever_is_stable_above():
    ends = [(1e-3, "done"), (1e-2, "diverged"), (2e-2, "done"), (0.1, "diverged")]
    assert edge(ends) == (1e-3, 1e-2)
    stable, diverged = edge(ends[:1])
    assert stable == 1e-3
    assert math.isnan(diverged)


def test_early_stopping_leaves_no_telling_what_is_stable():
    with pytest.raises(UsageError, match="set ASHA = TO_THE_END"):
        Space("e", "", BASE, {"optim.lr": RATES}, (0,), Asha(1_048_576), Bisect("optim.lr"))
