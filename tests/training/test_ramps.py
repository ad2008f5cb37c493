"""Runs whose batches grow: their steps, their resume, their ends.

tests/distributed/test_train.py shares one among workers.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmray.accounting import step_flops
from lmray.config import Run, override
from lmray.errors import PreflightError
from lmray.training import checkpoint, compiling, loop
from lmray.training.budget import Meter
from lmray.training.worker import Worker
from tests.small import small_run
from tests.training.test_loop import losses, run_loop, weights

RAMPS = {
    "data.batch_ramp": [{"share": 0.2, "batch_size": 2}],
    "data.length_ramp": [{"share": 0.4, "context_length": 8}],
}
"""1280 tokens: 16 steps of 2 x 8, to 256; 8 of 4 x 8, to 512; 12 of 4 x 16."""


def ramped(dataset: Path, **changes: Any) -> Run:
    return override(small_run(dataset), RAMPS | changes)


def test_a_ramped_run_spends_its_budget_exactly_and_learns(small_dataset: Path, tmp_path: Path):
    outcome, records = run_loop(ramped(small_dataset), small_dataset, tmp_path)
    assert (outcome.status, outcome.step, outcome.tokens) == ("done", 36, 1280)
    trained = [r for r in records if r["kind"] == "train"]
    shapes = [(r["sequences"], r["length"]) for r in trained]
    assert shapes == [(2, 8)] * 16 + [(4, 8)] * 8 + [(4, 16)] * 12
    assert [r["tokens"] for r in trained] == list(np.cumsum([s * t for s, t in shapes]))
    assert [r["micro_batch"] for r in trained] == [2] * 16 + [4] * 20
    assert [r["progress"] for r in trained] == [r["tokens"] / 1280 for r in trained]
    validations = [r for r in records if r["kind"] == "validation"]
    # The first step past each multiple of 320 tokens; windows are as long as ever.
    expected = [0, 320, 640, 960, 1280, 1280]
    assert [r["tokens"] for r in validations] == expected
    assert {r["context_length"] for r in validations} == {16}
    assert validations[-1]["loss"] < validations[0]["loss"] - 0.5


def test_the_learning_rate_runs_over_tokens(small_dataset: Path, tmp_path: Path):
    run = ramped(small_dataset, **{"optim.schedule": "linear", "optim.warmup_fraction": 0.1})
    _, records = run_loop(run, small_dataset, tmp_path)
    for record in (r for r in records if r["kind"] == "train"):
        tokens = record["tokens"]
        after = 1e-2 * (0.1 + 0.9 * (1280 - tokens) / (1280 - 128))
        assert record["lr"] == pytest.approx(1e-2 * tokens / 128 if tokens <= 128 else after)


def test_interrupted_within_a_ramp_and_continued_is_bit_equal(small_dataset: Path, tmp_path: Path):
    run = ramped(small_dataset)
    _, straight = run_loop(run, small_dataset, tmp_path / "straight")
    for stop_after in (5, 16, 23):
        folder = tmp_path / f"stopped-{stop_after}"
        first, before = run_loop(run, small_dataset, folder, stop_after=stop_after)
        assert (first.status, first.tokens) == ("preempted", run.batches.tokens(stop_after))
        second, after = run_loop(run, small_dataset, folder)
        assert (second.status, second.tokens) == ("done", 1280)
        assert losses(before) + losses(after) == losses(straight)
        assert weights(folder) == weights(tmp_path / "straight")


@pytest.mark.parametrize("factor", [math.nan, 10.0])
def test_a_loss_that_is_lost_within_a_ramp_ends_the_run_before_the_step(
    factor: float, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    true_loss, calls = compiling.mean_cross_entropy, []

    def poisoned(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return true_loss(logits, targets) * (factor if len(calls) == 19 else 1.0)

    monkeypatch.setattr(compiling, "mean_cross_entropy", poisoned)
    outcome, records = run_loop(ramped(small_dataset), small_dataset, tmp_path)
    assert (outcome.status, outcome.step, outcome.tokens) == ("diverged", 19, 256 + 3 * 32)
    assert (records[-1]["sequences"], records[-1]["length"]) == (4, 8)
    assert checkpoint.newest_first(tmp_path)[0].name == "step-00000016"


def test_memory_that_ends_within_a_ramp_is_remembered(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """There is room for 24 tokens at once: three sequences of 8, one of 16."""
    _, whole = run_loop(ramped(small_dataset), small_dataset, tmp_path / "whole")

    class Crowded(Worker):
        def _gradient(self, inputs: Any, targets: Any, micro_batch: int) -> Any:
            if micro_batch * inputs.shape[1] > 24:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super()._gradient(inputs, targets, micro_batch)

    monkeypatch.setattr(loop, "Worker", Crowded)
    _, found = run_loop(ramped(small_dataset), small_dataset, tmp_path / "crowded")
    trained = [r for r in found if r["kind"] == "train"]
    assert [r["micro_batch"] for r in trained] == [2] * 24 + [1] * 12
    for mine, its in zip(losses(found), losses(whole), strict=True):
        assert mine == (*its[:2], pytest.approx(its[2], rel=1e-5))


def test_operations_pay_for_the_steps_of_each_shape(small_dataset: Path):
    run = ramped(small_dataset)
    costs = [step_flops(run.model, run.batches.shape(step)) for step in range(36)]
    assert costs[0] * 2 == costs[16] < costs[24] / 2  # attention grows with the square
    for steps in (25, 30, 36):
        paid = override(run, {"budget.flops": float(sum(costs[:steps]))})
        assert Meter(paid).steps == steps
        total = run.batches.tokens(steps)
        assert Meter(paid).position(steps - 1, 0.0) == (total // 16, total // 16)
    short = override(run, {"budget.flops": float(sum(costs[:24]))})
    with pytest.raises(
        PreflightError, match=r"no room for one step of the full batch, .* after 24"
    ):
        Meter(short)
