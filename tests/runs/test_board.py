"""Runs that are done, ranked among those of their dataset."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lmray.cli.main import main
from lmray.config import Run, override
from lmray.presets import a_owt_tied, a_ts, base_owt, base_ts, tiny
from lmray.runs.board import board, expected, nearest_preset
from lmray.runs.run_directory import MetricsWriter, RunDirectory

BOARD = {"model.context_length": 512, "budget.seconds": 5400.0, "optim.precision": "bf16"}


def plant(
    runs: Path,
    name: str,
    run: Run,
    loss: float | None,
    *,
    data: str = "tinystories",
    status: Any = "done",
    bits: float = 0.5,
) -> None:
    """What a run of the loop leaves behind."""
    directory = RunDirectory(runs / name)
    directory.begin(run, name, {"digest": f"digest of {data}", "path": f"/x/tokens/{data}"})
    writer = MetricsWriter(directory.path / "metrics.jsonl")
    for scope, value in (("prefix", 1.0), ("all", loss)):
        where = {"kind": "validation", "scope": scope, "step": 9, "context_length": 256}
        writer({**where, "loss": value, "bits_per_byte": bits})
    writer.close()
    directory.finish(status, {"tokens": 1000, "seconds": 2.5, "step": 9})


def test_runs_are_ranked_by_loss_within_their_dataset_and_datasets_by_bits_per_byte(tmp_path: Path):
    plant(tmp_path, "worse", base_ts(), 1.50, bits=0.53)
    plant(tmp_path, "better", override(base_ts(), {"seed": 3, "optim.lr": 0.5}), 1.40, bits=0.49)
    plant(tmp_path, "other", base_owt(), 4.00, data="openwebtext", bits=0.45)
    plant(tmp_path, "early", base_ts(), 0.10, status="stopped")
    plant(tmp_path, "odd", base_ts(), None)
    first, second = board(tmp_path)
    assert (first.dataset, first.vocab_size) == ("openwebtext", 32_000)
    assert [entry.run for entry in first.entries] == ["other"]
    assert [entry.run for entry in second.entries] == ["better", "worse"]
    best = second.entries[0]
    assert (best.preset, best.changes) == ("base_ts", {"optim.lr": 0.5, "seed": 3})
    assert (best.loss, best.bits_per_byte, best.tokens, best.seconds) == (1.40, 0.49, 1000, 2.5)
    assert best.hardware
    assert best.date.startswith("20")
    assert board(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("base", "changes", "dataset", "low"),
    [
        (base_ts, {}, "tinystories", 1.36),
        (base_ts, {"optim.lr": 1e-4, "seed": 7}, "tinystories", 1.36),
        (base_ts, {"model.d_ff": 1344}, "tinystories", 1.36),  # what auto stands for
        (base_ts, {"model.d_ff": 1408}, "tinystories", None),
        (base_ts, {}, "shakespeare", None),
        (base_ts, {"budget.tokens": 1_000_000}, "tinystories", None),
        (base_ts, {"model.norm": "none"}, "tinystories", None),
        (base_owt, {}, "openwebtext", 3.80),
        (base_owt, {**BOARD, "budget.tokens": 10**10}, "openwebtext", 3.08),
        (base_owt, {**BOARD, "budget.seconds": 60.0}, "openwebtext", None),
        (a_ts, {}, "tinystories", 1.32),
        (a_ts, {"model.d_ff": "auto"}, "tinystories", None),
        (a_owt_tied, {"optim.lr": 3e-3}, "openwebtext", 3.70),
        (a_owt_tied, {"model.tied_embeddings": False}, "openwebtext", None),
        (tiny, {}, "tiny", None),
    ],
)
def test_a_band_is_of_a_preset_its_budget_and_its_data(
    base: Any, changes: dict, dataset: str, low: float | None
):
    preset, differing = nearest_preset(override(base(), changes))
    assert preset == base.__name__
    band = expected(preset, differing, dataset, "NVIDIA H100 80GB HBM3")
    assert (band.low if band else None) == low


def test_a_budget_in_seconds_is_of_its_hardware():
    preset, changes = nearest_preset(override(base_owt(), BOARD))
    assert expected(preset, changes, "openwebtext", "NVIDIA A100") is None


def test_the_board_is_printed_and_given_to_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def lmray(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["lmray", "board", "--root", str(tmp_path), *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    monkeypatch.setenv("COLUMNS", "250")
    assert "is done yet" in lmray()
    plant(tmp_path / "runs", "inside", base_ts(), 1.40)
    plant(tmp_path / "runs", "outside", override(base_ts(), {"optim.lr": 0.5}), 2.25)
    found = json.loads(lmray("--json"))["groups"][0]
    assert [entry["loss"] for entry in found["entries"]] == [1.40, 2.25]
    assert found["entries"][0]["band"]["high"] == 1.45
    printed = lmray()
    assert "tinystories: vocabulary 10,000" in printed
    assert printed.index(" inside") < printed.index(" outside")
    assert "lr=0.5" in printed
    assert "expected of base_ts, 1.36 to 1.45: 1.379" in printed
