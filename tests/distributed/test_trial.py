"""A job in a process that the next one uses again: what is left of it there."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lmray.config import Run, override
from lmray.dataset import open_splits
from lmray.distributed.trial import job
from lmray.runs.run_directory import RunDirectory
from lmray.sweeps.ledger import Ledger
from lmray.sweeps.space import TO_THE_END, Space
from tests.small import small_run

LEVEL = 5 * 64
"""The rung: where small_run evaluates for the first time in training."""


class Jobs:
    """Plays trials of a sweep here, one after the other, and its referee, who stops them all."""

    def __init__(self, folder: Path, tokens: Path, told: pytest.MonkeyPatch) -> None:
        self.folder, self.ledger = folder, Ledger(folder / "ledger.jsonl")
        self.tokens, self.now = tokens, ""
        self.raises: BaseException | None = None
        self.most = 0
        """Tensors and models while a trial trained."""
        told.setattr("lmray.distributed.trial._tell", self.tell)

    def tell(self, message: dict[str, Any]) -> None:
        if message["kind"] == "validation":
            self.most = len(alive())
            if self.raises:
                raise self.raises
            self.ledger.append("stopped", self.now, rung=message["tokens"])

    def go(self, lr: float, *, device: str = "cpu") -> RunDirectory:
        base = override(small_run(self.tokens), {"execution.device": device})
        space = Space("left", "", base, {"optim.lr": [lr]}, (0,), TO_THE_END)
        trial = space.trials(open_splits(self.tokens).digest)[0]
        self.now = trial.id
        job({"trial": self.spec(trial.id, trial.run)})
        return RunDirectory(self.folder / "runs" / trial.id)

    def spec(self, identifier: str, run: Run) -> dict[str, Any]:
        paths = {key: str(self.folder / key) for key in ("runs", "stop")}
        names = {"id": identifier, "name": identifier, "sweep": "left", "run": run.model_dump()}
        return {**names, **paths, "ledger": str(self.folder / "ledger.jsonl"), "levels": [LEVEL]}


@pytest.fixture
def jobs(small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """Without the collections of garbage that Python makes when it likes."""
    gc.collect()
    gc.disable()
    yield Jobs(tmp_path, small_dataset, monkeypatch)
    gc.enable()


def alive() -> list[Any]:
    """The tensors and models of this process; by type(), for some objects warn when asked."""
    kinds = (torch.Tensor, nn.Module)
    return [each for each in gc.get_objects() if issubclass(type(each), kinds)]


def new(before: list[Any]) -> list[Any]:
    known = {id(each) for each in before}
    return [each for each in alive() if id(each) not in known]


def test_nothing_of_a_stopped_trial_is_alive_when_the_next_begins(jobs: Jobs):
    before = alive()
    assert jobs.go(1e-2).facts["tokens"] == LEVEL
    assert jobs.most > len(before), "what would be left is seen while it trains"
    assert new(before) == []


@pytest.mark.parametrize("error", [OSError, torch.OutOfMemoryError])
def test_nothing_of_a_trial_that_raised_is_alive_once_its_error_is_gone(
    jobs: Jobs, error: type[Exception]
):
    before = alive()
    jobs.raises = error("planted")
    with pytest.raises(error, match="planted"):
        jobs.go(1e-2)
    jobs.raises = None
    gc.collect()
    assert new(before) == []


@pytest.mark.gpu
def test_a_gpu_has_its_memory_back_when_a_stopped_trial_has_left(jobs: Jobs):
    jobs.go(1e-2, device="cuda")  # cuBLAS keeps what it works in for the whole process
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    assert jobs.go(1e-3, device="cuda").facts["tokens"] == LEVEL
    assert torch.cuda.memory_allocated() == allocated
    assert torch.cuda.memory_reserved() <= reserved
