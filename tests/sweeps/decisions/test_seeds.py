"""Combinations of several seeds at the rungs: means where trials wait, pairs where they do not."""

import math
import random
import statistics
from pathlib import Path
from typing import Any

import pytest

from lmray.sweeps.decisions.asha import Asha
from lmray.sweeps.decisions.halving import MAX_FAILURES
from lmray.sweeps.ledger import CLOSED, read_events, standing
from tests.sweeps.decisions.planted import (
    LEVELS,
    check_that_kills_change_nothing,
    draw_curves,
    played,
    record,
    referee,
    tell,
)

STOP, PROMOTE = Asha(100, 2, "stop"), Asha(100, 2, "promote")


def draw(seed: int, combinations: int, seeds: int, *, mishaps: bool = True) -> dict[str, list[Any]]:
    """Curves of every combination with every seed, in an order drawn by lot."""
    drawing = random.Random(seed)
    curves = list(draw_curves(drawing, combinations * seeds, mishaps=mishaps).values())
    names = [f"t{number}/{each}" for number in range(combinations) for each in range(seeds)]
    drawing.shuffle(names)
    return dict(zip(names, curves, strict=True))


@pytest.mark.parametrize(
    ("asha", "places", "seeds"),
    [(PROMOTE, 1, 2), (PROMOTE, 3, 3), (Asha(100, 2, "promote", 3), 2, 2), (STOP, 2, 3)],
    ids=str,
)
def test_a_sweep_of_seeds_killed_after_any_line_decides_as_one_never_killed(
    tmp_path: Path, asha: Asha, places: int, seeds: int
):
    curves = draw(7, 3, seeds)
    check_that_kills_change_nothing(asha, tmp_path, curves, places, 7, seeds)


@pytest.mark.parametrize("asha", [STOP, PROMOTE], ids=lambda asha: asha.mode)
@pytest.mark.parametrize("places", [1, 2, 5])
@pytest.mark.parametrize("seeds", [2, 3])
def test_no_seed_waits_for_ever_and_there_is_an_answer(
    tmp_path: Path, asha: Asha, places: int, seeds: int
):
    for seed in range(8):
        curves = draw(seed, seed % 5 + 1, seeds)
        path = tmp_path / f"{seed}.jsonl"
        machine = played(asha, path, curves, places, seed, seeds)
        stands = standing(read_events(path))
        assert set(stands) == set(curves)
        assert set(stands.values()) <= set(CLOSED)
        assert machine.most <= places
        if asha == PROMOTE and any(None not in curve for curve in curves.values()):
            assert "done" in stands.values()


def means_at(seen: dict[str, float], out: dict[str, str], seeds: int) -> dict[str, float]:
    """The mean of each combination that is complete at a rung with the losses `seen`."""
    found = {}
    for name in dict.fromkeys(trial.partition("/")[0] for trial in seen):
        members = [f"{name}/{number}" for number in range(seeds)]
        losses = [seen[trial] for trial in members if trial in seen]
        absent = [trial for trial in members if trial not in seen]
        if any(out.get(trial) == "diverged" for trial in members):
            found[name] = math.inf
        elif all(trial in out for trial in absent):
            found[name] = statistics.fmean(losses)
    return found


@pytest.mark.parametrize("places", [1, 3])
@pytest.mark.parametrize("seeds", [2, 3])
def test_whoever_passes_a_rung_is_of_a_combination_among_the_best_in_the_mean_of_all_its_seeds(
    tmp_path: Path, places: int, seeds: int
):
    regular = 0
    for seed in range(6):
        curves = draw(seed, 5, seeds)
        path = tmp_path / f"{seed}.jsonl"
        played(PROMOTE, path, curves, places, seed, seeds)
        seen: dict[int, dict[str, float]] = {level: {} for level in LEVELS}
        out: dict[str, str] = {}
        passed: set[tuple[int, str]] = set()
        running: set[str] = set()
        for event in read_events(path):
            trial, level = event.trial, event.facts.get("rung", event.facts.get("past"))
            name = trial.partition("/")[0]
            if event.kind in ("rung", "paused", "diverged") and level:
                loss = event.facts.get("loss")
                seen[level].setdefault(trial, math.inf if loss is None else loss)
            if event.kind in ("rung", "promoted") and (level, name) not in passed:
                means = means_at(seen[level], out, seeds)
                better = sum(mean < means.get(name, math.inf) for mean in means.values())
                among = name in means and better < len(means) // 2
                last_resort = (
                    event.kind == "promoted" and not running and "done" not in out.values()
                )
                assert among or last_resort, f"{trial} passes {level}"
                regular += among
                passed.add((level, name))
            if event.kind in ("started", "promoted", "rung"):
                running.add(trial)
            else:
                running.discard(trial)
            if event.kind in ("stopped", "diverged", "done"):
                out[trial] = event.kind
    assert regular > 10


def test_all_seeds_of_a_combination_share_its_fate(tmp_path: Path):
    for seed in range(8):
        curves = draw(seed, 6, 3, mishaps=False)
        path = tmp_path / f"{seed}.jsonl"
        played(PROMOTE, path, curves, 2, seed, 3)
        ends = {e.trial: (e.kind, e.facts.get("rung")) for e in read_events(path)}
        fates = [{ends[f"t{number}/{each}"] for each in range(3)} for number in range(6)]
        assert all(len(fate) == 1 for fate in fates)
        assert ("done", None) in set().union(*fates)


def test_a_seed_waits_for_the_others_and_then_their_mean_is_compared(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    names = ("a/0", "b/0", "a/1", "b/1")
    judge = referee(PROMOTE, path, {name: [] for name in names}, 4, seeds=2)
    for name, loss in (("a/0", 1.0), ("b/0", 3.0), ("b/1", 3.5)):
        tell(judge, "judged", name, record(100, loss))
    assert [e.kind for e in read_events(path)[4:]] == ["paused"] * 3
    tell(judge, "judged", "a/1", record(100, 5.0))  # the mean of a is 3, of b 3.25
    stands = standing(read_events(path))
    assert stands == {"a/0": "promoted", "a/1": "rung", "b/0": "paused", "b/1": "paused"}


def test_a_combination_that_diverges_in_one_seed_ranks_last_at_once(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    names = ("a/0", "b/0", "a/1", "b/1")
    judge = referee(PROMOTE, path, {name: [] for name in names}, 4, seeds=2)
    tell(judge, "judged", "a/0", record(100, 1.0))
    judge.ended("a/1", "diverged", {"tokens": 40, "loss": None})
    tell(judge, "judged", "b/0", record(100, 9.0))
    tell(judge, "judged", "b/1", record(100, 9.0))
    stands = standing(read_events(path))
    assert stands == {"a/0": "paused", "a/1": "diverged", "b/0": "promoted", "b/1": "rung"}


def test_a_seed_that_failed_too_often_is_not_waited_for(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    names = ("a/0", "b/0", "a/1", "b/1")
    judge = referee(PROMOTE, path, {name: [] for name in names}, 4, seeds=2)
    for name, loss in (("b/0", 3.0), ("b/1", 3.0), ("a/0", 1.0)):
        tell(judge, "judged", name, record(100, loss))
    for number in range(MAX_FAILURES + 1):
        judge.failed("a/1", "ValueError: planted", trace=str(number))
    stands = standing(read_events(path))
    assert stands == {"a/0": "promoted", "a/1": "failed", "b/0": "paused", "b/1": "paused"}


def test_where_nobody_waits_a_trial_is_compared_with_those_of_its_own_seed(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    names = ("a/0", "a/1", "b/0", "b/1")
    judge = referee(STOP, path, {name: [] for name in names}, 4, seeds=2)
    # Seed 1 is worth two nats more; a is the better one in both.
    for name, loss in (("a/0", 1.0), ("b/0", 1.5), ("a/1", 3.0), ("b/1", 3.5)):
        tell(judge, "judged", name, record(100, loss))
    stands = standing(read_events(path))
    assert stands == {"a/0": "rung", "b/0": "stopped", "a/1": "rung", "b/1": "stopped"}
