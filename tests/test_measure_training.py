"""The script that measures a training step says what it measured, without Ray."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = {"vocab_size": 300, "context_length": 16, "num_layers": 1, "d_model": 32, "num_heads": 2}


def measured(folder: Path, *options: str) -> dict:
    (folder / "ray.py").write_text("raise AssertionError('a measurement imports Ray')")
    command = [sys.executable, str(ROOT / "scripts" / "measure_training.py"), "--json"]
    command += ["--preset", "tiny", "--device", "cpu", "--steps", "1", "--warm-up", "1", *options]
    command += ["--set", *(f"model.{key}={value}" for key, value in SMALL.items())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    done = subprocess.run(
        [*command, "execution.threads=2"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return json.loads(done.stdout)


def test_speed_costs_and_what_precision_changes(tmp_path: Path):
    options = ("--precision", "bf16", "--compare-fp32", "2", "--batch-size", "4")
    (row,) = measured(tmp_path, *options)["rows"]
    low, high = row["slowest_and_fastest"]
    assert 0 < low <= row["tokens_per_s"] <= high
    assert (row["tokens_per_step"], row["micro_batch"], row["mfu"]) == (64, 4, None)
    assert row["peak_memory_bytes"] > 0
    assert row["tflop_per_s"] > 0
    shares = [cost["share"] for cost in row["costs"]]
    assert len(shares) == 3
    assert 1 >= shares[0] >= shares[1] >= shares[2] > 0
    assert sum(shares) <= 1
    found = row["compared"]
    assert found["steps"] == 2
    assert found["loss"] != found["fp32_loss"]
    assert found["loss"] == pytest.approx(found["fp32_loss"], abs=found["fp32_spread"])
