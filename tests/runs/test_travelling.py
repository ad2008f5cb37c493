"""A run at a URL is killed between changes of the store and goes on on another node, each time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmray import remote
from lmray.config import run_id
from lmray.dataset import open_splits
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from tests.folder_store import use_folder
from tests.runs.test_kills import ONE_THREAD, measured
from tests.runs.travelling import CHANGES, RUNS, short_run


@pytest.mark.slow
def test_a_run_killed_on_fourteen_nodes_is_the_run_that_was_not(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done = subprocess.run(
        [sys.executable, "-m", "tests.runs.travelling", small_dataset, tmp_path],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **dict.fromkeys(ONE_THREAD, "1")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    deaths = [json.loads(line) for line in done.stdout.splitlines()]
    assert [death["signal"] for death in deaths] == [9] * len(CHANGES) + [0], done.stderr
    # Some fell within a checkpoint, and what was whole never became less.
    assert any(death["begun"] != death["whole"] for death in deaths)
    newest = [death["whole"][-1] for death in deaths if death["whole"]]
    assert newest == sorted(newest)
    assert len(set(newest)) >= 3

    run, splits = short_run(small_dataset), open_splits(small_dataset)
    whole = execute(run, splits, tmp_path / "whole", report=lambda record: None)
    use_folder(tmp_path / "store", monkeypatch)
    monkeypatch.setenv("LMRAY_CACHE", str(tmp_path / "reader"))
    travelled = RunDirectory(remote.cached(RUNS) / run_id(run, splits.digest))
    remote.refresh(travelled.path)
    assert (travelled.status, whole.status) == ("done", "done")
    assert measured(travelled) == measured(whole)
    kept = [path.name for path in sorted(whole.checkpoints.iterdir())]
    assert [path.name for path in sorted(travelled.checkpoints.iterdir())] == kept
    for name in ("model.safetensors", "optimizer.safetensors"):
        for step in kept:
            a, b = (each.checkpoints / step / name for each in (travelled, whole))
            assert a.read_bytes() == b.read_bytes()
