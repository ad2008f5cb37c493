"""The noise scale of a run at its checkpoints, against gradients taken one by one."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lmray.cli.main import main
from lmray.dataset import BatchSampler, open_splits
from lmray.model import cross_entropy
from lmray.runs.execute import execute
from lmray.runs.noise import measure_noise, read_noise
from lmray.runs.run_directory import RunDirectory
from lmray.runs.trained import load_trained
from tests.small import small_run

BATCHES, SEQUENCES = 6, 3


@pytest.fixture(scope="module")
def run(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    runs = tmp_path_factory.mktemp("noise") / "runs"
    return execute(
        small_run(small_dataset), open_splits(small_dataset), runs, report=lambda record: None
    )


def test_each_checkpoint_has_the_scale_of_the_batches_that_would_follow(
    run: RunDirectory, small_dataset: Path
):
    assert read_noise(run.path) == []
    facts = measure_noise(run, batches=BATCHES, sequences=SEQUENCES)
    assert read_noise(run.path) == facts["checkpoints"]
    assert [row["step"] for row in facts["checkpoints"]] == [16, 20]
    sampler = BatchSampler(open_splits(small_dataset).train, SEQUENCES, 16, 0)
    for row in facts["checkpoints"]:
        model = load_trained(run, str(row["step"])).model
        gradients = []
        for step in range(row["step"], row["step"] + BATCHES):
            inputs, targets = sampler.batch(step)
            model.zero_grad()
            logits = model(torch.from_numpy(inputs.copy()))
            cross_entropy(logits, torch.from_numpy(targets.copy())).backward()
            parts = [p.grad.flatten().double() for p in model.parameters() if p.grad is not None]
            gradients.append(torch.cat(parts).numpy())
        whole = np.stack(gradients)
        # Unbiased both: the trace of the covariance of a batch's gradient, and |G|^2.
        noise = whole.var(axis=0, ddof=1).sum()
        signal = np.square(whole.mean(axis=0)).sum() - noise / BATCHES
        assert row["squared_gradient"] == pytest.approx(signal, rel=1e-3)
        assert row["variance"] == pytest.approx(SEQUENCES * noise, rel=1e-3)
        if signal > 0:
            scale = SEQUENCES * noise / signal
            assert row["noise_scale_sequences"] == pytest.approx(scale, rel=1e-3)
            assert row["noise_scale_tokens"] == pytest.approx(16 * scale, rel=1e-3)
        assert row["tokens"] == 64 * row["step"]


def test_the_verb_leaves_it_in_the_runs_directory(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def lmray(*words: str) -> tuple[str, str, int]:
        monkeypatch.setattr(sys, "argv", ["lmray", "noise-scale", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return *capsys.readouterr(), int(ended.value.code or 0)

    out, err, code = lmray(str(run.path), "--batches", "4", "--sequences", "2", "--json")
    assert code == 0
    (found,) = json.loads(out)["runs"]
    assert found == json.loads((run.path / "noise_scale.json").read_text())
    assert (found["batches"], found["sequences"]) == (4, 2)
    assert "noise scale: done" in err
    out, _, _ = lmray(str(run.path), "--batches", "8", "--sequences", "2")
    last = next(line.split() for line in out.splitlines() if line.split()[:1] == ["20"])
    value = read_noise(run.path)[-1]["noise_scale_sequences"]
    assert last[2] == ("-" if value is None else f"{value:,.4g}")
    assert value is None or math.isfinite(value)
