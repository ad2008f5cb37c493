"""Budgets in steps, operations and seconds; runs against the clock."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lmray.accounting import step_flops
from lmray.config import Budget, Run, override
from lmray.dataset import open_splits
from lmray.errors import PreflightError, UsageError
from lmray.presets import base_ts
from lmray.training.budget import Meter
from lmray.training.loop import train
from tests.devices import DEVICES
from tests.small import small_run


def test_the_tightest_of_tokens_steps_and_operations_counts():
    run = override(Run(), {"budget.tokens": 10 * 32_768, "budget.steps": 7})
    assert (run.steps, Meter(run).steps) == (7, 7)
    assert override(run, {"budget.steps": 70}).steps == 10
    by_flops = override(run, {"budget.flops": 3.5 * step_flops(run.model, run.batches.shape(0))})
    assert Meter(by_flops).steps == 3
    with pytest.raises(PreflightError, match=r"budget.flops=1 has no room for one step of .*raise"):
        Meter(override(run, {"budget.flops": 1.0}))
    with pytest.raises(UsageError, match=r"budget.seconds=-1.* is neither a finite number above 0"):
        override(run, {"budget.seconds": -1.0})


def test_operations_are_six_for_each_weight_of_a_product_and_attentions():
    run = base_ts()
    layers, d, length, vocabulary = 4, 512, 256, 10_000
    weights = layers * (4 * d * d + 3 * d * 1344) + vocabulary * d
    a_token = 6 * weights + 12 * layers * length * d
    assert step_flops(run.model, run.batches.shape(0)) == a_token * 128 * length


def test_without_a_time_limit_positions_are_steps():
    meter = Meter(override(Run(), {"budget.steps": 3}))
    assert [meter.position(step, 1e9) for step in range(3)] == [(1, 3), (2, 3), (3, 3)]
    assert [meter.ends(step, 1e9) for step in range(1, 4)] == [False, False, True]


def test_time_and_steps_race_and_the_reserve_is_kept():
    timed_run = override(Run(), {"budget.steps": 100, "budget.seconds": 20.0})
    meter = Meter(timed_run)
    meter.reserve(5.0)  # with its margin 6 s: 14 s are for training
    meter.took(1.0)
    assert meter.position(0, 0.0) == (1000, 14_000)
    assert meter.position(89, 3.0) == (90, 100)
    for _ in range(16):
        meter.took(0.25)
    assert meter.position(3, 3.0) == (90, 100)  # not back to 3250 of 14000
    for _ in range(16):
        meter.took(1.0)
    assert not meter.ends(5, 12.9)
    assert meter.ends(5, 13.1)
    assert meter.position(5, 30.0) == (14_000, 14_000)
    with pytest.raises(PreflightError, match=r"leaves no time to train: .* take about 24 s; raise"):
        Meter(timed_run).reserve(20.0)


against_the_clock = pytest.mark.flaky(reruns=3, reruns_delay=1)
"""A machine may be busy just when seconds are counted."""


def timed(small_dataset: Path, seconds: float) -> Run:
    run = small_run(small_dataset, budget=Budget(tokens=10**9, seconds=seconds))
    changes = {"optim.schedule": "linear", "optim.min_lr_fraction": 0.0}
    return override(run, changes | {"evaluation.interval_tokens": 64 * 200})


@against_the_clock
@pytest.mark.parametrize("device", DEVICES)
def test_a_timed_run_ends_its_schedule_and_its_evaluation_by_the_deadline(
    device: str, small_dataset: Path, tmp_path: Path
):
    run = override(timed(small_dataset, 4.0), {"execution.device": device})
    records: list[dict] = []
    begun = time.perf_counter()
    outcome = train(run, open_splits(small_dataset), tmp_path, identity={}, report=records.append)
    assert time.perf_counter() - begun < 5.5
    assert outcome.status == "done"
    assert outcome.seconds < 4.8
    trained = [r for r in records if r["kind"] == "train"]
    assert trained[-1]["step"] == outcome.step > 20
    assert trained[-1]["progress"] > 0.8
    assert trained[-1]["lr"] < 0.2 * run.optim.lr
    progress = [r["progress"] for r in trained]
    assert progress == sorted(progress)
    assert records[-1]["scope"] == "all"


@pytest.mark.parametrize("seconds", [2.0, "none"])
def test_a_timed_run_is_at_most_a_step_ahead_of_a_gpu(
    seconds: float | str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One without a time limit waits for nothing."""
    from lmray.training import loop, worker

    done: list[str] = []

    class Event:
        made = 0

        def __init__(self) -> None:
            Event.made += 1
            self.number = Event.made

        def record(self) -> None:
            done.append(f"queued {self.number}")

        def synchronize(self) -> None:
            done.append(f"waited for {self.number}")

    class OnGPU(worker.Worker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.waits = False

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(loop, "Worker", OnGPU)
    run = small_run(small_dataset, budget=Budget(tokens=10 * 64, seconds=seconds))
    outcome = train(run, open_splits(small_dataset), tmp_path, identity={}, report=[].append)
    assert outcome.status == "done"
    if seconds == "none":
        assert done == []
        return
    steps = range(2, outcome.step + 1)
    pairs = [(f"queued {step}", f"waited for {step - 1}") for step in steps]
    assert done == ["queued 1", *(entry for pair in pairs for entry in pair)]


@against_the_clock
def test_a_resumed_timed_run_has_what_is_left_of_its_time(small_dataset: Path, tmp_path: Path):
    run, splits = timed(small_dataset, 4.0), open_splits(small_dataset)
    records: list[dict] = []

    def late() -> bool:
        return records[-1]["seconds"] > 2.0

    first = train(run, splits, tmp_path, identity={}, report=records.append, interrupted=late)
    assert first.status == "preempted"
    records.clear()
    begun = time.perf_counter()
    second = train(run, splits, tmp_path, identity={}, report=records.append)
    assert second.status == "done"
    assert time.perf_counter() - begun < 3.5
    trained = [r for r in records if r["kind"] == "train"]
    assert trained[0]["progress"] > 0.45
    assert trained[-1]["lr"] < 0.2 * run.optim.lr
    assert 2.5 < second.seconds < 4.8
