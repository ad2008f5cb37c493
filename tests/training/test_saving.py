"""Checkpoints written by a thread: one at a time, errors not lost, the newest and the best kept."""

import logging
import threading
from pathlib import Path

import pytest
import torch

from lmray.config import override
from lmray.dataset import open_splits
from lmray.errors import LmrayError
from lmray.model import TransformerLM
from lmray.training import AdamW, checkpoint
from lmray.training.loop import train
from lmray.training.saving import Saver
from lmray.training.snapshot import Snapshot
from tests.small import small_run

IDENTITY = {"experiment": "test"}
PATIENCE_S = 60


class Disk:
    """A checkpoint.write that waits until it is let go, and has no room for some steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.free = threading.Semaphore(0), threading.Event()
        self.full_at: tuple[int, ...] = ()
        self.at_once = self.most_at_once = 0
        self._write = checkpoint.write
        monkeypatch.setattr(checkpoint, "write", self)

    def __call__(self, directory: Path, snapshot: Snapshot) -> Path:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.begun.release()
        assert self.free.wait(PATIENCE_S)
        self.at_once -= 1
        if snapshot.position.step in self.full_at:
            raise LmrayError("cannot write checkpoint: no space")
        return self._write(directory, snapshot)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def make():
    torch.manual_seed(0)
    model = TransformerLM(50, 16, 32, 1, 4, 48, 10_000.0)
    optimizer = AdamW(model.parameters())
    take_a_step(model, optimizer)
    return model, optimizer


def take_a_step(model, optimizer) -> None:
    model(torch.zeros(1, 4, dtype=torch.int64)).square().mean().backward()
    optimizer.step()


def saver(directory: Path, *, keep: int = 9, keep_best: bool = False) -> Saver:
    return Saver(directory, identity=IDENTITY, keep=keep, keep_best=keep_best)


def steps(directory: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoint.newest_first(directory)]


def test_training_goes_on_while_a_checkpoint_of_before_is_written(tmp_path: Path, disk: Disk):
    model, optimizer = make()
    weights = model.lm_head.weight.detach().clone()
    with saver(tmp_path) as saving:
        saving.save(1, 64, 0.0, model, optimizer)
        assert disk.begun.acquire(timeout=PATIENCE_S)
        take_a_step(model, optimizer)
        assert not torch.equal(weights, model.lm_head.weight)
        assert steps(tmp_path) == []
        disk.free.set()
        saving.wait()
        assert steps(tmp_path) == [1]
    found, fresh = make()
    assert checkpoint.restore_latest(tmp_path, found, fresh, identity=IDENTITY).step == 1
    assert torch.equal(found.lm_head.weight, weights)


def test_one_write_at_a_time_and_the_block_waits_for_the_last(tmp_path: Path, disk: Disk):
    model, optimizer = make()
    timer = threading.Timer(0.05, disk.free.set)
    timer.start()
    with saver(tmp_path) as saving:
        for step in (1, 2, 3):
            saving.save(step, step, 0.0, model, optimizer)
    timer.join()
    assert disk.most_at_once == 1
    assert steps(tmp_path) == [3, 2, 1]


def test_the_threads_error_is_raised_by_the_next_save(tmp_path: Path, disk: Disk):
    model, optimizer = make()
    disk.full_at = (1,)
    disk.free.set()
    with saver(tmp_path) as saving:
        saving.save(1, 1, 0.0, model, optimizer)
        with pytest.raises(LmrayError, match="no space"):
            saving.save(2, 2, 0.0, model, optimizer)
        saving.save(3, 3, 0.0, model, optimizer)
    assert steps(tmp_path) == [3]


def test_the_threads_error_is_raised_at_the_end_of_the_block(tmp_path: Path, disk: Disk):
    disk.full_at = (1,)
    disk.free.set()
    with pytest.raises(LmrayError, match="no space"), saver(tmp_path) as saving:
        saving.save(1, 1, 0.0, *make())


def test_another_error_in_the_block_is_not_hidden_by_the_threads(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
):
    disk.full_at = (1,)
    disk.free.set()

    def stopped() -> None:
        with saver(tmp_path) as saving:
            saving.save(1, 1, 0.0, *make())
            raise SystemExit("stopped")

    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit, match="stopped"):
        stopped()
    assert "no space" in caplog.text


def test_the_newest_and_the_best_are_kept_over_lives(tmp_path: Path):
    model, optimizer = make()
    losses = {1: 5.0, 2: 4.0, 3: None, 4: 4.0, 5: 4.5}
    with saver(tmp_path, keep=2, keep_best=True) as saving:
        saving.restore(model, optimizer)
        assert all(saving.improves(step, losses[step]) for step in (1, 2))
        saving.save(2, 2, 0.0, model, optimizer)
        for step in (3, 4):
            assert not saving.improves(step, losses[step])
            saving.save(step, step, 0.0, model, optimizer)
    with saver(tmp_path, keep=2, keep_best=True) as saving:
        assert saving.restore(model, optimizer).step == 4
        assert not saving.improves(5, losses[5])
        saving.save(5, 5, 0.0, model, optimizer)
        saving.wait()
        assert steps(tmp_path) == [5, 4, 2]
        assert saving.improves(6, 3.5)
        saving.save(6, 6, 0.0, model, optimizer)
    assert steps(tmp_path) == [6, 5]
    (best,) = checkpoint.select(tmp_path, "best")
    assert best.name == "step-00000006"
    # Without it the newest alone are kept.
    with saver(tmp_path, keep=1) as saving:
        saving.restore(model, optimizer)
        assert not saving.improves(7, 0.1)
        saving.save(7, 7, 0.0, model, optimizer)
    assert steps(tmp_path) == [7]


def test_a_run_keeps_the_weights_of_its_lowest_validation_loss(small_dataset: Path, tmp_path: Path):
    """A rate too high in the last quarter: the best is at an evaluation, not at an interval."""
    changes = {
        "execution.keep_best": True,
        "execution.keep_checkpoints": 1,
        "execution.checkpoint_interval_steps": 1000,
        "optim.schedule": "phases",
        "optim.lr": 0.4,
        "optim.phases": ({"share": 0.75, "start": 0.025, "end": 0.025}, {"share": 0.25}),
        "optim.clip_norm": "none",
    }
    run = override(small_run(small_dataset), changes)
    records: list[dict] = []

    def once(directory: Path, stop_after: int = 0) -> None:
        train(
            run,
            open_splits(small_dataset),
            directory,
            identity=IDENTITY,
            report=records.append,
            interrupted=lambda: bool(stop_after) and records[-1]["step"] >= stop_after,
        )

    once(tmp_path / "whole")
    losses = {
        r["step"]: r["loss"]
        for r in records
        if r["kind"] == "validation" and r["scope"] == "prefix"
    }
    best = min((loss, step) for step, loss in losses.items() if step)[1]
    assert best == 15
    assert steps(tmp_path / "whole") == [20, best]
    assert checkpoint.select(tmp_path / "whole", "best")[0].name == f"step-{best:08d}"
    # Interrupted after the best, a run knows it still.
    once(tmp_path / "broken", stop_after=best + 2)
    once(tmp_path / "broken")
    assert steps(tmp_path / "broken") == [20, best]
    files = [tmp_path / name / f"step-{best:08d}/model.safetensors" for name in ("whole", "broken")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_full_disk_is_the_trainings_error(small_dataset: Path, tmp_path: Path, disk: Disk):
    """At the next checkpoint, or at the end if it was the last one."""
    disk.free.set()
    run = override(small_run(small_dataset), {"execution.checkpoint_interval_steps": 8})

    records: list[dict] = []
    for full, last in ((16, 20), (20, 20), (8, 16)):
        records.clear()
        disk.full_at = (full,)
        folder = tmp_path / str(full)
        with pytest.raises(LmrayError, match="no space"):
            train(run, open_splits(small_dataset), folder, identity=IDENTITY, report=records.append)
        assert records[-1]["step"] == last
        assert steps(folder) == [step for step in (16, 8) if step < full]
