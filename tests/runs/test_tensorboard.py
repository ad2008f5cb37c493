"""TensorBoard's files as TensorBoard reads them."""

import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lmray.config import Tracking
from lmray.dataset import open_splits
from lmray.errors import PreflightError
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from tests.small import small_run


def run_with_tensorboard(dataset: Path, runs: Path, **options: Any) -> RunDirectory:
    run = small_run(dataset, tracking=Tracking(tensorboard=True))
    return execute(run, open_splits(dataset), runs, **{"report": lambda record: None} | options)


def points(directory: RunDirectory, tag: str) -> list[tuple[int, float]]:
    read = EventAccumulator(str(directory.path / "tensorboard"))
    read.Reload()
    return [(event.step, event.value) for event in read.Scalars(tag)]


def recorded(directory: RunDirectory, kind: str, key: str) -> list[tuple[int, Any]]:
    found = [r for r in directory.records(kind) if r.get("scope", "prefix") == "prefix"]
    return [(r["step"], pytest.approx(r[key], rel=1e-6)) for r in found]


def test_every_record_is_drawn_once_though_a_life_was_lost(small_dataset: Path, tmp_path: Path):
    class Lost(Exception):
        pass

    def lose(record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == 11:
            raise Lost  # three steps after the last checkpoint

    with pytest.raises(Lost):
        run_with_tensorboard(small_dataset, tmp_path, report=lose)
    directory = run_with_tensorboard(small_dataset, tmp_path)
    assert directory.status == "done"
    assert [life["began_at_step"] for life in directory.facts["lives"]] == [0, 8]
    assert len(list((directory.path / "tensorboard").iterdir())) == 2
    for key in ("loss", "lr", "max_attention_logit", "tflop_per_s"):
        drawn = points(directory, f"train/{key}")
        assert [step for step, _ in drawn] == list(range(1, 21))
        assert drawn == recorded(directory, "train", key)
    assert points(directory, "validation/prefix/loss") == recorded(directory, "validation", "loss")
    assert points(directory, "train/tokens") == [(step, 64 * step) for step in range(1, 21)]


def test_without_its_package_it_is_refused_before_anything_begins(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(PreflightError, match=r"not installed; pip install 'lmray\[tensorboard\]'"):
        run_with_tensorboard(small_dataset, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
