import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler

from lmray.distributed.asha import AshaScheduler, Rungs, rebuild
from lmray.experiments.ledger import CLOSED, Ledger, read_events, standing


def may_go_on(loss: float, earlier: list[float], eta: int) -> bool:
    """The rule said another way: fewer than n // eta earlier losses are as good or better."""
    n = len(earlier) + 1
    if not math.isfinite(loss):
        return False
    return n < eta or sum(other <= loss for other in earlier) < n // eta


@given(
    losses=st.lists(st.one_of(st.floats(0, 10), st.sampled_from([1.0, math.inf])), max_size=30),
    eta=st.integers(2, 5),
)
def test_the_rule_lets_the_best_of_each_rung_go_on(losses: list[float], eta: int):
    rungs = Rungs((100,), eta)
    for i, loss in enumerate(losses):
        rungs.record(str(i), 100, loss)
        assert rungs.goes_on(str(i), 100) == may_go_on(loss, losses[:i], eta)


def test_a_worked_example():
    rungs = Rungs((100,), 3)
    decisions = []
    for trial, loss in enumerate([5.0, 4.0, 4.5, 3.0, 3.5, 2.0, 2.5]):
        rungs.record(str(trial), 100, loss)
        decisions.append(rungs.goes_on(str(trial), 100))
    # Two go on untold; the third must be the best of three; from six on two of them may.
    assert decisions == [True, True, False, True, False, True, True]


def test_a_rung_is_judged_once_and_none_is_skipped():
    rungs = Rungs((100, 300, 900), 3)
    assert rungs.passed("a", 99) == []
    assert rungs.passed("a", 350) == [100, 300]
    rungs.record("a", 100, 1.0)
    assert rungs.passed("a", 350) == [300]


def trial(identifier: str) -> SimpleNamespace:
    return SimpleNamespace(config={"trial": {"id": identifier}}, error_file="")


def say(scheduler: AshaScheduler, identifier: str, **message: object) -> str:
    return scheduler.on_trial_result(None, trial(identifier), {"message": json.dumps(message)})


def validation(tokens: int, loss: float | None) -> dict:
    facts = {"step": tokens // 10, "seconds": 1.0, "bits_per_byte": 1.0, "perplexity": 9.0}
    return {"kind": "validation", "tokens": tokens, "loss": loss, **facts}


def scheduler(path: Path) -> AshaScheduler:
    rungs, ledger = Rungs((100, 200), 2), Ledger(path)
    rebuild(rungs, ledger.events())
    return AshaScheduler(rungs, ledger)


def test_decisions_go_into_the_ledger(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    asha = scheduler(path)
    for identifier in "ab":
        say(asha, identifier, kind="started", name=identifier, changes={})
    assert say(asha, "a", **validation(0, 7.0)) == TrialScheduler.CONTINUE
    assert say(asha, "a", **validation(100, 5.0)) == TrialScheduler.CONTINUE
    assert say(asha, "b", **validation(110, 6.0)) == TrialScheduler.STOP
    say(asha, "a", kind="ended", status="done", facts={"loss": 4.0})
    kinds = [(event.kind, event.trial) for event in read_events(path)]
    assert kinds == [
        ("started", "a"),
        ("started", "b"),
        ("rung", "a"),
        ("stopped", "b"),
        ("done", "a"),
    ]
    assert read_events(path)[3].facts["rung"] == 100
    assert standing(read_events(path)) == {"a": "done", "b": "stopped"}


def test_a_report_without_a_loss_is_an_error_not_silence(tmp_path: Path):
    asha = scheduler(tmp_path / "ledger.jsonl")
    message = validation(100, 5.0)
    del message["loss"]
    with pytest.raises(KeyError, match="loss"):
        say(asha, "a", **message)


def test_a_loss_that_is_not_finite_is_stopped_even_when_it_is_first(tmp_path: Path):
    asha = scheduler(tmp_path / "ledger.jsonl")
    assert say(asha, "a", **validation(100, None)) == TrialScheduler.STOP


def test_a_diverged_trial_ranks_last_at_the_rung_it_was_on_its_way_to(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    asha = scheduler(path)
    say(asha, "a", kind="ended", status="diverged", facts={"tokens": 40})
    assert [(e.kind, e.facts["rung"]) for e in read_events(path)] == [("diverged", 100)]
    assert say(asha, "b", **validation(100, 9.0)) == TrialScheduler.CONTINUE


def test_what_is_neither_done_nor_diverged_has_failed(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    asha = scheduler(path)
    say(asha, "a", kind="ended", status="out_of_memory", facts={})
    asha.on_trial_error(None, trial("b"))
    assert standing(read_events(path)) == {"a": "failed", "b": "failed"}
    assert "failed" not in CLOSED


PLANTED = [("a", 100, 5.0), ("b", 100, 4.0), ("c", 100, 6.0), ("b", 200, 3.0), ("a", 200, 3.5)] + [
    ("d", 100, 3.9),
    ("e", 100, None),
    ("d", 200, 2.0),
]


@pytest.mark.parametrize("killed_after", range(len(PLANTED) + 1))
def test_a_sweep_resumed_from_its_ledger_decides_as_one_never_killed(
    tmp_path: Path, killed_after: int
):
    def decisions(path: Path, cut: int) -> list[str]:
        asha, made = scheduler(path), []
        for number, (identifier, tokens, loss) in enumerate(PLANTED):
            if number == cut:
                with path.open("ab") as ledger:
                    ledger.write(b'{"event":"rung","tri')  # what kill -9 may leave
                asha = scheduler(path)
            made.append(say(asha, identifier, **validation(tokens, loss)))
        return made

    straight = decisions(tmp_path / "straight.jsonl", cut=-1)
    assert set(straight) == {TrialScheduler.CONTINUE, TrialScheduler.STOP}
    assert decisions(tmp_path / "cut.jsonl", cut=killed_after) == straight
    facts = [(e.kind, e.trial, e.facts) for e in read_events(tmp_path / "cut.jsonl")]
    again = [(e.kind, e.trial, e.facts) for e in read_events(tmp_path / "straight.jsonl")]
    for _, _, one in facts + again:
        one.pop("time")
    assert facts == again
