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
from lmray.model import TransformerLM
from lmray.training import loop, worker
from lmray.training.accumulation import Room, fitting, parts
from lmray.training.compiling import compiled, part_sizes
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


def test_a_cpus_memory_ends_too():
    """What torch really says of an allocation that no machine has room for."""

    def compute(micro_batch: int) -> int:
        return len(torch.empty(1 if micro_batch < 3 else 1 << 48))

    assert fitting(compute, 8) == (1, 2)
    with pytest.raises(torch.OutOfMemoryError, match="can't allocate memory"):
        fitting(lambda micro_batch: torch.empty(1 << 48), 2)
    with pytest.raises(RuntimeError, match="shape"):
        fitting(lambda micro_batch: torch.empty(3).view(2), 2)


def test_what_fits_is_kept_to():
    tried = []

    def compute(micro_batch: int) -> None:
        tried.append(micro_batch)
        if micro_batch > 5:
            raise torch.OutOfMemoryError("out")

    room = Room("auto")
    for sequences in (3, 16, 16, 2):
        room.fitting(compute, sequences)
    assert tried == [3, 16, 8, 4, 4, 2]
    assert Room(6).at_once(9) == 6


def test_compiling_is_of_the_parts_that_steps_will_have():
    assert part_sizes([(128, 16), (128, 16), (50, 32), (64, 8)], 48) == [
        *[(48, 16), (32, 16)],
        *[(48, 32), (2, 32)],
        *[(48, 8), (16, 8)],
    ]


# torch's compiler, about torch itself.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::UserWarning:torch")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_compiling_makes_smaller_parts_where_memory_ends(small_dataset: Path):
    run = override(small_run(small_dataset), {"execution.compile": "default"})
    sizes, room = [], Room("auto")

    def backward(loss: Any, rows: slice) -> None:
        sizes.append(rows.stop)
        if rows.stop > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    compiled(TransformerLM.from_config(run.model), run, [(4, 16), (10, 8)], room, backward)
    assert sizes == [4, 10, 4, 5, 3, 1, 3, 1]
    assert room.at_once(10) == 3


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


def test_a_run_without_room_for_its_batch_evaluates_and_trains_in_smaller_parts(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """From its first evaluation on, which is before its first step, there is room for two."""
    whole = train(small_run(small_dataset), small_dataset, tmp_path / "whole")
    sizes = []

    class Crowded(worker.Worker):
        def __init__(self, run: Any, splits: Any) -> None:
            super().__init__(run, splits)
            self.model.register_forward_pre_hook(self._crowd)

        def _crowd(self, module: Any, given: Any) -> None:
            sizes.append(len(given[0]))
            if sizes[-1] > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop, "Worker", Crowded)
    found = train(small_run(small_dataset), small_dataset, tmp_path / "crowded")
    assert [size for size in sizes if size > 2] == [4]
    assert {r["micro_batch"] for r in found if "lr" in r} == {2}
    for mine, its in zip(found, whole, strict=True):
        assert mine["loss"] == pytest.approx(its["loss"], rel=2e-6)
