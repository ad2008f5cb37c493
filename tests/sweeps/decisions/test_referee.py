"""A referee's ledger, and that it is the same however often the referee dies."""

import json
import random
from pathlib import Path

import pytest

from lmray.sweeps.decisions.asha import Asha
from lmray.sweeps.decisions.audit import Auditor
from lmray.sweeps.decisions.halving import MAX_LOSSES
from lmray.sweeps.decisions.referee import Referee, reopen
from lmray.sweeps.ledger import CLOSED, Ledger, read_events, standing
from tests.sweeps.decisions.planted import (
    BUDGET,
    LEVELS,
    check_that_kills_change_nothing,
    draw_curves,
    lines,
    played,
    record,
    referee,
    tell,
    trials,
)

STOP, PROMOTE, NONE = (Asha(100, 2, mode) for mode in ("stop", "promote", "none"))


@pytest.mark.parametrize("asha", [STOP, PROMOTE, Asha(100, 2, "promote", 3)], ids=str)
@pytest.mark.parametrize("places", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_a_sweep_killed_after_any_line_decides_as_one_never_killed(
    tmp_path: Path, asha: Asha, places: int, seed: int
):
    curves = draw_curves(random.Random(seed), 9)
    check_that_kills_change_nothing(asha, tmp_path, curves, places, seed)


@pytest.mark.parametrize("asha", [STOP, PROMOTE, NONE], ids=lambda asha: asha.mode)
@pytest.mark.parametrize("places", [1, 2, 5])
def test_every_sweep_ends_with_each_trial_closed_and_an_answer(
    tmp_path: Path, asha: Asha, places: int
):
    for seed in range(40):
        draw = random.Random(seed)
        curves = draw_curves(draw, draw.randint(1, 12))
        path = tmp_path / f"{seed}.jsonl"
        machine = played(asha, path, curves, places, seed)
        stands = standing(read_events(path))
        assert set(stands) == set(curves)
        assert set(stands.values()) <= set(CLOSED)
        assert machine.most <= places
        finite = [None not in curve for curve in curves.values()]
        # Mode stop may have stopped them for the sake of one that diverges later.
        if all(finite) if asha == STOP else any(finite):
            assert "done" in stands.values()


def test_promoting_finds_the_best_of_curves_that_do_not_cross(tmp_path: Path):
    for seed in range(20):
        order = list(range(16))
        random.Random(seed).shuffle(order)
        curves = {f"t{n}": [n + 1.0] * (len(LEVELS) + 1) for n in order}
        path = tmp_path / f"{seed}.jsonl"
        played(PROMOTE, path, curves, 2, seed)
        stands = standing(read_events(path))
        assert stands["t0"] == "done"
        judged = [e.facts["rung"] for e in read_events(path) if e.kind in ("rung", "paused")]
        assert judged.count(100) == 16
        assert judged.count(200) < 16


def test_what_is_paused_when_nothing_is_left_is_stopped_where_it_was_measured(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    curves = {"a": [4.0, 3.0, 2.0, 1.0, 0.5], "b": [5.0] * 5, "c": [6.0] * 5}
    played(PROMOTE, path, curves, 1, 0)
    last = [event for event in read_events(path) if event.kind == "stopped"]
    assert {event.trial for event in last} == {"b", "c"}
    assert all(event.facts["loss"] == curves[event.trial][0] for event in last)
    assert standing(read_events(path))["a"] == "done"


def test_a_report_without_a_loss_is_an_error_not_silence(tmp_path: Path):
    judge = referee(STOP, tmp_path / "ledger.jsonl", {"a": [1.0]}, 1)
    message = record(100, 5.0)
    del message["loss"]
    with pytest.raises(KeyError, match="loss"):
        judge.judge("a", message)


def test_a_trial_that_is_done_without_having_been_judged_has_failed(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    judge = referee(STOP, path, {"a": [1.0]}, 1)
    judge.judge("a", record(100, 5.0))
    judge.ended("a", "done", {"tokens": BUDGET, "loss": 1.0})
    failed = [event for event in read_events(path) if event.kind == "failed"]
    assert failed[0].facts["error"] == "it trained past 200 tokens without a validation loss there"


def test_a_diverged_trial_ranks_last_at_the_rung_it_was_on_its_way_to(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    judge = referee(STOP, path, {"a": [], "b": []}, 2)
    judge.ended("a", "diverged", {"tokens": 40, "loss": None})
    assert read_events(path)[-1].kind == "diverged"
    assert read_events(path)[-1].facts["rung"] == 100
    judge.judge("b", record(100, 9.0))
    assert read_events(path)[-1].kind == "rung"


def test_a_trial_that_is_done_with_a_loss_that_is_not_finite_has_diverged(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    judge = referee(NONE, path, {"a": []}, 1)
    judge.ended("a", "done", {"tokens": BUDGET, "loss": None})
    assert standing(read_events(path)) == {"a": "diverged"}


def test_a_failed_trial_is_retried_then_given_up_and_its_place_goes_to_the_next(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    judge = referee(STOP, path, {"a": [], "b": []}, 1)
    judge.failed("a", "OSError: x", trace="1")
    assert list(judge.jobs) == ["a"]
    judge.failed("a", "OSError: x", trace="1")
    assert standing(read_events(path)) == {"a": "failed", "b": "started"}
    assert not judge.broken
    again = reopen(STOP, BUDGET, Ledger(path), tmp_path, "none")
    assert again == []
    assert reopen(STOP, BUDGET, Ledger(path), tmp_path, "failed") == ["a"]
    judge = referee(STOP, path, {"a": [], "b": []}, 2)
    assert list(judge.jobs) == ["b", "a"]


def test_a_lost_process_is_no_failure_of_its_trial_until_it_is_lost_again_and_again(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    judge = referee(STOP, path, {"a": [], "b": [], "c": []}, 3)
    for level in LEVELS[:2]:
        for trial in "abc" if level == 100 else "a":
            for _ in range(MAX_LOSSES):
                judge.failed(trial, "the actor died", trace="", lost=True)
        judge.judge("a", record(level, 1.0))
    assert not judge.broken
    assert standing(read_events(path))["a"] == "rung"
    judge.failed("b", "the actor died", trace="", lost=True)
    assert standing(read_events(path))["b"] == "failed"


def test_losses_of_a_trial_that_gets_further_in_between_do_not_add_up(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    judge = referee(STOP, path, {"a": []}, 1)
    for saved in range(10, 200, 10):
        judge.failed("a", "the actor died", trace="", lost=True, saved=saved)
        assert standing(read_events(path))["a"] == "started"
    judge = referee(STOP, path, {"a": []}, 1)
    for _ in range(MAX_LOSSES - 1):
        judge.failed("a", "the actor died", trace="", lost=True, saved=190)
    assert standing(read_events(path))["a"] == "started"
    judge.failed("a", "the actor died", trace="", lost=True, saved=190)
    assert standing(read_events(path))["a"] == "failed"


def test_a_diverged_trial_that_is_retried_begins_anew_and_is_judged_anew(tmp_path: Path):
    path, curves = tmp_path / "ledger.jsonl", {"a": [], "b": []}
    judge = referee(STOP, path, curves, 2)
    judge.judge("a", record(100, None))
    (tmp_path / "a").mkdir()
    assert reopen(STOP, BUDGET, Ledger(path), tmp_path, "failed") == []
    assert reopen(STOP, BUDGET, Ledger(path), tmp_path, "all") == ["a"]
    assert not (tmp_path / "a").exists()
    judge = referee(STOP, path, curves, 2)
    judge.judge("a", record(100, 3.0))
    assert read_events(path)[-1].kind == "rung"


def test_the_third_failure_alike_of_several_trials_stops_the_sweep(tmp_path: Path):
    judge = referee(STOP, tmp_path / "ledger.jsonl", {trial: [] for trial in "abcd"}, 2)
    judge.failed("a", "KeyError: 'x'", trace="same")
    judge.failed("a", "KeyError: 'x'", trace="same")
    judge.failed("b", "OSError: y", trace="other")
    assert not judge.broken
    judge.failed("c", "KeyError: 'z'", trace="same")
    assert judge.broken.startswith("2 trials failed alike, 3 times: KeyError: 'z'")


FAILURES = [("a", "same"), ("a", "same"), ("b", "other"), ("c", "same")]
"""By trial and trace: the last is the third alike."""


def fail_in_lives(path: Path, failures: list[tuple[str, str]]) -> Referee:
    """Has trials fail, each in another life of their sweep; returns the last life's referee."""
    for trial, trace in failures:
        judge = referee(STOP, path, {trial: [] for trial in "abcd"}, 2)
        assert not judge.broken
        judge.failed(trial, f"{trace}: {trial}", trace=trace)
    return judge


def test_failures_alike_are_counted_over_the_kills_between_them(tmp_path: Path):
    straight, path = tmp_path / "straight.jsonl", tmp_path / "ledger.jsonl"
    alone = referee(STOP, straight, {trial: [] for trial in "abcd"}, 2)
    for trial, trace in FAILURES:
        alone.failed(trial, f"{trace}: {trial}", trace=trace)
    killed = fail_in_lives(path, FAILURES)
    assert (
        killed.broken
        == alone.broken
        == ("2 trials failed alike, 3 times: same: c; correct that and resume the sweep")
    )
    assert lines(path) == lines(straight)


def test_a_sweep_that_is_resumed_after_failures_alike_counts_anew(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    fail_in_lives(path, FAILURES)
    assert not fail_in_lives(path, [("c", "same"), ("d", "same")]).broken
    assert fail_in_lives(path, [("d", "same")]).broken.startswith("2 trials failed alike, 3 times")


def test_failures_of_before_a_retry_are_not_counted_those_after_it_are(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    fail_in_lives(path, FAILURES[:-1])
    assert reopen(STOP, BUDGET, Ledger(path), tmp_path, "failed") == ["a"]
    assert not fail_in_lives(path, [("c", "same"), ("c", "same")]).broken
    assert fail_in_lives(path, [("a", "same")]).broken.startswith("2 trials failed alike, 3 times")


def test_a_ledger_of_before_traces_were_in_it_is_read_and_counts_for_nothing(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    fail_in_lives(path, FAILURES[:-1])
    found = [json.loads(line) for line in path.read_text().splitlines()]
    old = [{key: each[key] for key in each if key != "trace"} for each in found]
    assert old != found
    path.write_text("".join(f"{json.dumps(each)}\n" for each in old))
    assert not fail_in_lives(path, FAILURES[-1:]).broken


@pytest.mark.parametrize("end", ["preempted", "done", "diverged"])
def test_a_process_that_dies_after_it_has_told_its_end_takes_nothing_from_its_trial(
    tmp_path: Path, end: str
):
    path, asha = tmp_path / "ledger.jsonl", PROMOTE if end == "preempted" else NONE
    judge = referee(asha, path, {"a": [], "b": []}, 2)
    if end == "preempted":
        judge.judge("a", record(100, 3.0))
    tell(judge, end, "a", None if end == "diverged" else 3.0)
    before = read_events(path)
    tell(judge, "died", "a")
    assert read_events(path) == before
    # A ledger in which that was written down is read as if it had not been.
    Ledger(path).append("failed", "a", error="its process was lost", lost=True, saved=0)
    assert standing(read_events(path)) == standing(before)
    if end == "preempted":
        referee(asha, path, {"a": [], "b": []}, 2).judge("b", record(100, 4.0))
        assert read_events(path)[-2:][0].kind == "paused"
        assert (read_events(path)[-1].kind, read_events(path)[-1].trial) == ("promoted", "a")


def test_an_audited_process_that_dies_after_it_has_told_its_end_is_not_audited_again(
    tmp_path: Path,
):
    path = tmp_path / "ledger.jsonl"
    auditor = Auditor(Ledger(path), ["b"])
    assert auditor.jobs.popleft() == "b"
    auditor.ended("b", "done", {"loss": 0.5, "tokens": BUDGET})
    auditor.failed("b", "its process was lost", trace="", lost=True)
    assert not auditor.jobs
    assert not auditor.broken


def test_an_audited_trial_that_is_not_at_its_end_is_started_again(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    auditor = Auditor(Ledger(path), ["b"])
    assert auditor.jobs.popleft() == "b"
    auditor.ended("b", "preempted", {"loss": None, "tokens": 50})
    assert list(auditor.jobs) == ["b"]
    assert read_events(path) == []


def test_what_is_stopped_in_the_end_after_a_resume_is_dated_by_that(tmp_path: Path):
    path, curves = tmp_path / "ledger.jsonl", {"a": [5.0] * 5, "b": [3.0] * 5}
    referee(PROMOTE, path, curves, 1).judge("a", record(100, 5.0))
    played(PROMOTE, path, curves, 1, 0)  # by a referee that has read the line of a's pause
    found = read_events(path)
    assert (found[-1].kind, found[-1].trial) == ("stopped", "a")
    times = [event.facts["time"] for event in found]
    assert times == sorted(times)
    assert times[-1] > times[1]


def test_an_audit_changes_neither_decisions_nor_how_trials_stand(tmp_path: Path):
    path, curves = tmp_path / "ledger.jsonl", {"a": [1.0] * 5, "b": [2.0] * 5, "c": [3.0] * 5}
    played(PROMOTE, path, curves, 1, 0)
    before = standing(read_events(path))
    auditor = Auditor(Ledger(path), ["b", "c"])
    auditor.ended("b", "done", {"loss": 0.5, "tokens": BUDGET})
    assert standing(read_events(path)) == before
    assert list(Auditor(Ledger(path), ["b", "c"]).jobs) == ["c"]
    assert referee(PROMOTE, path, curves, 1).finished


def test_a_trial_that_is_added_when_all_have_begun_gets_the_next_place(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    known = trials({"a": [], "b": []})
    found = Referee(NONE, BUDGET, Ledger(path), known, places=2)
    known += trials({"c": []})
    assert list(found.jobs) == ["a", "b"]
    tell(found, "done", "a", 3.0)
    assert list(found.jobs) == ["a", "b", "c"]
    assert not found.finished


def test_a_referee_that_is_asked_to_stop_judges_but_gives_no_place_and_closes_nobody(
    tmp_path: Path,
):
    path = tmp_path / "ledger.jsonl"
    known, stop = trials({"a": [], "b": [], "c": []}), []
    found = Referee(PROMOTE, BUDGET, Ledger(path), known, places=2, stop=lambda: bool(stop))
    stop.append("now")
    for trial, loss in (("a", 3.0), ("b", 4.0)):
        tell(found, "judged", trial, record(100, loss))
    assert standing(read_events(path)) == {"a": "paused", "b": "paused"}
    Referee(PROMOTE, BUDGET, Ledger(path), known, places=2)
    assert standing(read_events(path)) == {"a": "promoted", "b": "paused", "c": "started"}
