"""Batches in parts: the same losses, and smaller parts where memory ends."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmray.config import override
from lmray.dataset import open_splits
from lmray.training import loop, worker
from lmray.training.accumulation import fitting, parts
from tests.small import small_run


@given(st.integers(1, 300), st.integers(1, 300))
def test_parts_are_the_rows_in_order(sequences, micro_batch):
    rows = [row for part in parts(sequences, micro_batch) for row in range(sequences)[part]]
    assert rows == list(range(sequences))
    assert len(parts(sequences, micro_batch)) == math.ceil(sequences / micro_batch)


def test_memory_that_ends_halves_until_it_does_not():
    tried = []

    def compute(micro_batch: int) -> str:
        tried.append(micro_batch)
        if micro_batch > 3:
            raise torch.OutOfMemoryError("out")
        return "fits"

    assert fitting(compute, 13) == ("fits", 2)
    assert tried == [13, 7, 4, 2]


def test_one_sequence_that_does_not_fit_is_an_error():
    def compute(micro_batch: int) -> None:
        raise torch.OutOfMemoryError("out")

    with pytest.raises(torch.OutOfMemoryError):
        fitting(compute, 8)


def train(run: Any, dataset: Path, directory: Path) -> list[dict]:
    records: list[dict] = []
    loop.train(run, open_splits(dataset), directory, identity={}, report=records.append)
    return [record for record in records if "loss" in record]


def test_losses_do_not_depend_on_the_micro_batch(small_dataset: Path, tmp_path: Path):
    whole = train(small_run(small_dataset), small_dataset, tmp_path / "whole")
    for micro_batch in (1, 2, 3, 99):
        run = override(small_run(small_dataset), {"execution.micro_batch": micro_batch})
        found = train(run, small_dataset, tmp_path / str(micro_batch))
        assert {r["micro_batch"] for r in found if "lr" in r} == {min(micro_batch, 4)}
        for mine, its in zip(found, whole, strict=True):
            assert mine["loss"] == pytest.approx(its["loss"], rel=2e-6)
    assert [r["loss"] for r in found] == [r["loss"] for r in whole]


def test_a_run_that_meets_the_end_of_memory_goes_on_in_smaller_parts(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """From step 6 on there is room for two sequences only."""
    whole = train(small_run(small_dataset), small_dataset, tmp_path / "whole")
    steps = []

    class Crowded(worker.Worker):
        def take_step(self, step: int, lr: float, *, compares: bool) -> Any:
            steps.append(step)
            return super().take_step(step, lr, compares=compares)

        def _gradient(self, inputs: Any, targets: Any, micro_batch: int) -> Any:
            gradient = super()._gradient(inputs, targets, micro_batch)
            if steps[-1] >= 5 and micro_batch > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return gradient

    monkeypatch.setattr(loop, "Worker", Crowded)
    found = train(small_run(small_dataset), small_dataset, tmp_path / "crowded")
    assert [r["micro_batch"] for r in found if "lr" in r] == [4] * 5 + [2] * 15
    assert steps == list(range(20))
    for mine, its in zip(found, whole, strict=True):
        assert mine["loss"] == pytest.approx(its["loss"], rel=2e-6)
        assert mine["tokens"] == its["tokens"]
