"""The peak of memory is a run's own, also in a process that has trained another one before."""

import sys
from pathlib import Path

import pytest
import torch

from lmray import machine
from lmray.config import Model
from lmray.dataset import open_splits
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from lmray.training.measured import forget_peak_memory, peak_memory_bytes
from tests.small import VOCAB_SIZE, small_run

CPU = torch.device("cpu")


def test_a_run_does_not_inherit_the_peak_of_the_one_before(small_dataset: Path, tmp_path: Path):
    large = Model(vocab_size=VOCAB_SIZE, context_length=16, num_layers=1, d_model=768, num_heads=2)
    budget, evaluation = {"tokens": 64}, {"interval_tokens": 64, "prefix_tokens": 64}
    once = {"budget": budget, "evaluation": evaluation}
    splits = open_splits(small_dataset)

    def peak(run) -> int:
        directory = execute(run, splits, tmp_path, report=lambda record: None)
        (life,) = directory.facts["lives"]
        assert life["peak_memory_of"] == "run"
        return RunDirectory(directory.path).records("train")[-1]["peak_memory_bytes"]

    if not machine.forget_peak_memory():
        pytest.skip("this system cannot forget a peak")
    first = peak(small_run(small_dataset, **once))
    most = peak(small_run(small_dataset, model=large, **once))
    # Weights, gradients and two moments of seven million parameters, half of that to be safe.
    assert most > first + 60_000_000
    assert peak(small_run(small_dataset, **{**once, "seed": 1})) < most - 50_000_000


def test_where_the_system_cannot_forget_the_peak_is_the_process_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(machine, "_CLEAR_REFS", tmp_path / "no" / "such")
    before = peak_memory_bytes(CPU)
    assert forget_peak_memory(CPU) == "process"
    assert peak_memory_bytes(CPU) >= before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_both_ways_to_read_a_peak_agree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    machine.forget_peak_memory()
    block = torch.ones(50_000_000)
    known = machine.peak_memory()
    assert known > block.numel() * 4
    monkeypatch.setattr(machine, "_STATUS", tmp_path / "none")
    # The kernel adds up pages a few at a time.
    assert machine.peak_memory() > known - 20_000_000
