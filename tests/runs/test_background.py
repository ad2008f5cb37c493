"""Trackers that raise or hang, beside a training that does not notice."""

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from lmray.config import Tracking
from lmray.dataset import open_splits
from lmray.runs import tracking
from lmray.runs.execute import execute
from lmray.runs.tracking import Background
from tests.small import small_run


class Listed:
    """A tracker that notes what it is given."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.steps: list[int] = []
        self.status = ""

    def __call__(self, record: dict[str, Any]) -> None:
        self.steps.append(record["step"])

    def close(self, status: str) -> None:
        self.status = status


def record(step: int) -> dict[str, Any]:
    return {"kind": "start" if step == 3 else "train", "step": step}


def test_every_record_arrives_in_order_and_then_the_end():
    made: list[Listed] = []

    def begin(step: int) -> Listed:
        made.append(Listed(step))
        return made[-1]

    background = Background("it", begin, patience_s=60)
    for step in range(3, 500):
        background(record(step))
    background.close("done")
    assert [(one.step, one.steps, one.status) for one in made] == [(3, list(range(3, 500)), "done")]


def test_a_run_that_never_began_begins_no_tracker():
    made: list[int] = []
    Background("it", lambda step: made.append(step) or Listed(step), patience_s=60).close("failed")
    assert made == []


@pytest.mark.parametrize("where", ["begin", "call", "close"])
def test_one_that_raises_is_dropped_with_one_warning(where: str, caplog: pytest.LogCaptureFixture):
    class Broken(Listed):
        def __init__(self, step: int) -> None:
            super().__init__(step)
            self.fail("begin")

        def __call__(self, record: dict[str, Any]) -> None:
            self.fail("call")

        def close(self, status: str) -> None:
            self.fail("close")

        def fail(self, here: str) -> None:
            if here == where:
                raise OSError(f"{here}\nis down")

    background = Background("it", Broken, patience_s=60)
    for step in range(3, 10):
        background(record(step))
    background.close("done")
    background(record(10))
    (message,) = [entry.message for entry in caplog.records]
    assert message.startswith(f"it is dropped: OSError: {where} is down; the run goes on")


def test_one_that_hangs_is_waited_for_no_longer_than_its_patience(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    free = threading.Event()

    class Hanging(Listed):
        def __call__(self, record: dict[str, Any]) -> None:
            free.wait()

    monkeypatch.setattr(tracking, "_MOST_WAITING", 20)
    background = Background("it", Hanging, patience_s=0.1)
    for step in range(3, 10):
        background(record(step))
    background.close("done")
    assert "has not ended after 0.1 s" in caplog.text
    caplog.clear()
    full = Background("it", Hanging, patience_s=0.1)
    for step in range(3, 100):
        full(record(step))
    full.close("done")
    assert [entry.message.partition(";")[0] for entry in caplog.records] == [
        "it is dropped: 20 records wait for it"
    ]
    free.set()


def test_a_training_reaches_its_end_beside_trackers_that_fail(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
):
    """W&B's begin hangs for ever, TensorBoard's raises."""
    free = threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        free.wait()

    def fail(*_: Any) -> None:
        raise PermissionError("no place to write")

    monkeypatch.setattr(tracking, "WandbTracker", hang)
    monkeypatch.setattr(tracking, "TensorBoardTracker", fail)
    monkeypatch.setattr(tracking, "_PATIENCE_S", 0.1)
    run = small_run(small_dataset, tracking=Tracking(wandb="offline", tensorboard=True))
    with caplog.at_level(logging.WARNING):
        directory = execute(run, open_splits(small_dataset), tmp_path, report=lambda record: None)
    free.set()
    assert directory.status == "done"
    assert len(directory.records("train")) == 20
    assert sorted(entry.message.partition(";")[0] for entry in caplog.records) == [
        "TensorBoard is dropped: PermissionError: no place to write",
        "W&B is dropped: it has not ended after 0.1 s",
    ]
