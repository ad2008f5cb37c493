"""What a sweep says of its early stopping, from ledgers whose truth is planted."""

import math
from pathlib import Path

import pytest

from lmray.config import Budget, Data, Evaluation, Model, Run
from lmray.sweeps.answers.tables import read_sweep
from lmray.sweeps.decisions.honesty import Honesty, honesty, spearman, suspects
from lmray.sweeps.ledger import Ledger, read_events
from lmray.sweeps.space import Asha, Space
from lmray.sweeps.sweep_directory import claim

BASE = Run(
    model=Model(context_length=64),
    data=Data(batch_size=125),
    budget=Budget(tokens=4_000_000),
    evaluation=Evaluation(interval_tokens=1_000_000),
)
AT_RUNG = {1e-4: 6.0, 1e-3: 4.5, 2e-3: 4.0, 4e-3: 4.25, 8e-3: 4.125, 1e-2: 4.75, 2e-2: 5.0}
FINAL = {2e-3: 3.0, 4e-3: 2.5, 8e-3: 2.75}
"""The others are stopped at one million tokens."""


def sweep(folder: Path, *, seeds: tuple[int, ...] = (0,), audited: dict[float, object] | None):
    space = Space("s", "", BASE, {"optim.lr": list(AT_RUNG)}, seeds, Asha(1_000_000, 4))
    claim(folder, space, "digest")
    ledger = Ledger(folder / "ledger.jsonl")
    tokens, trials = 1_000_000, space.trials("digest")
    for trial in trials:
        rate, seed = trial.changes["optim.lr"], trial.changes["seed"]
        at = {"rung": tokens, "tokens": tokens, "loss": AT_RUNG[rate]}
        if rate in FINAL:
            ledger.append("rung", trial.id, **at)
            ledger.append("done", trial.id, tokens=4_000_000, loss=FINAL[rate] + seed / 10)
        else:
            ledger.append("stopped", trial.id, **at)
    for rate, loss in (audited or {}).items():
        trial = next(t for t in trials if t.changes == {"optim.lr": rate, "seed": 0})
        facts = {"status": "diverged" if loss is None else "done", "loss": loss}
        ledger.append("audited", trial.id, **facts)
    return read_sweep(folder, folder), read_events(folder / "ledger.jsonl")


def judged(folder: Path, **facts) -> Honesty:
    return honesty(*sweep(folder, **facts))


def test_rungs_are_set_against_ends_and_the_nearest_stopped_trial_is_named(tmp_path: Path):
    found = judged(tmp_path, audited=None)
    ((rung, rho, n),) = [(c.rung, c.rho, c.n) for c in found.correlations]
    # At the rung 2e-3, 8e-3, 4e-3; at the end 4e-3, 8e-3, 2e-3.
    assert (rung, n) == (1_000_000, 3)
    assert rho == pytest.approx(-1)
    assert [each.row.trial.changes["optim.lr"] for each in found.stopped] == [
        1e-3,
        1e-2,
        2e-2,
        1e-4,
    ]
    assert found.stopped[0].behind == pytest.approx(0.25)  # of 4e-3, which wins
    assert (found.trained_tokens, found.full_tokens) == (16_000_000, 28_000_000)
    text = "\n".join(found.lines())
    assert "16,000,000 of 28,000,000 tokens (57 %)" in text
    assert "lr=0.001 seed=0, was 0.2500 nats behind the winner" in text
    assert "No stopped trial was trained to its end" in text


def test_an_audit_that_finds_nothing_better_says_by_how_much(tmp_path: Path):
    text = "\n".join(judged(tmp_path, audited={1e-3: 2.75, 2e-2: None}).lines())
    assert "Of 2 stopped trials trained to their end none would have won" in text
    assert "lr=0.001 seed=0 ends 0.2500 nats behind the winner." in text


def test_an_audit_that_finds_better_says_that_asha_lied(tmp_path: Path):
    found = judged(tmp_path, audited={1e-3: 2.375, 1e-2: 2.4375, 2e-2: 3.0})
    assert math.isnan(found.seed_spread)
    assert "Of 3 stopped trials trained to their end 2 would have won, so" in found.lines()[-1]
    assert "ASHA lied: lr=0.001 seed=0 ends 0.1250 nats ahead of the winner." in found.lines()[-1]


def test_a_lie_is_set_against_the_spread_over_seeds(tmp_path: Path):
    found = judged(tmp_path, seeds=(0, 1), audited={1e-3: 2.45})
    assert found.seed_spread == pytest.approx(0.1 / math.sqrt(2))
    assert "within the winner's spread of 0.0707 over seeds" in found.lines()[-1]


def test_a_stopped_trial_is_set_against_the_winner_with_its_seed(tmp_path: Path):
    space = Space("s", "", BASE, {"optim.lr": [1e-3, 2e-3]}, (0, 1), Asha(1_000_000, 2))
    claim(tmp_path, space, "digest")
    ledger = Ledger(tmp_path / "ledger.jsonl")
    own = {(t.changes["optim.lr"], t.changes["seed"]): t.id for t in space.trials("digest")}
    # Seed 1 is worse by a nat whatever the rate.
    for (rate, seed), trial in own.items():
        at = {"rung": 1_000_000, "tokens": 1_000_000, "loss": 4.0 + seed + 50 * (rate == 1e-3)}
        ledger.append("stopped" if rate == 1e-3 else "rung", trial, **at)
        if rate == 2e-3:
            ledger.append("done", trial, tokens=4_000_000, loss=3.0 + seed)
    ledger.append("audited", own[1e-3, 1], status="done", loss=3.95)
    found = honesty(read_sweep(tmp_path, tmp_path), read_events(tmp_path / "ledger.jsonl"))
    assert [each.behind for each in found.stopped] == [50.0, 50.0]
    assert [each.behind for each in found.audits] == [pytest.approx(-0.05)]
    assert "1 would have won, so ASHA lied" in found.lines()[-1]


def test_what_too_few_ends_tell_of_rungs_is_said_to_be_unknown_and_audits_are_ends(tmp_path: Path):
    space = Space("s", "", BASE, {"optim.lr": [1e-3, 2e-3, 4e-3]}, (0,), Asha(1_000_000, 2))
    claim(tmp_path, space, "digest")
    ledger = Ledger(tmp_path / "ledger.jsonl")
    first, *others = [trial.id for trial in space.trials("digest")]
    for loss, trial in enumerate((first, *others), start=4):
        at = {"rung": 1_000_000, "tokens": 1_000_000, "loss": loss}
        ledger.append("rung" if trial == first else "stopped", trial, **at)
    ledger.append("done", first, tokens=4_000_000, loss=3.0)

    def told() -> str:
        events = read_events(tmp_path / "ledger.jsonl")
        return "\n".join(honesty(read_sweep(tmp_path, tmp_path), events).lines())

    assert "that are done or audited: unknown at 1,000,000 tokens (n = 1)." in told()
    for loss, trial in zip((2.5, 2.0), others, strict=True):
        ledger.append("audited", trial, status="done", loss=loss)
    assert "that are done or audited: -1.00 at 1,000,000 tokens (n = 3)." in told()


def test_audits_that_all_diverge_have_no_number(tmp_path: Path):
    assert judged(tmp_path, audited={2e-2: None}).lines()[-1].endswith("all of them diverge.")


def test_suspects_are_the_nearest_and_some_by_lot(tmp_path: Path):
    found = sweep(tmp_path, audited=None)
    rates = [row.trial.changes["optim.lr"] for row in suspects(*found, 3)]
    assert rates[:2] == [1e-3, 1e-2]
    assert rates[2] in (2e-2, 1e-4)
    assert [row.trial.changes["optim.lr"] for row in suspects(*found, 3)] == rates
    assert len({suspects(*found, 3, seed=s)[2].trial.id for s in range(20)}) == 2
    assert len(suspects(*found, 99)) == 4


@pytest.mark.parametrize(
    ("one", "other", "rho"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        # Wikipedia's example: IQ against hours of television.
        (
            [106, 100, 86, 101, 99, 103, 97, 113, 112, 110],
            [7, 27, 2, 50, 28, 29, 20, 12, 6, 17],
            -29 / 165,
        ),
        ([1, 1, 2], [1, 2, 3], math.sqrt(3) / 2),  # ties share their mean rank
    ],
)
def test_spearman(one: list[float], other: list[float], rho: float):
    assert spearman(one, other) == pytest.approx(rho)


def test_spearman_of_equal_values_is_nothing():
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
