"""What a report says of batch sizes: the plateau, the noise scale, and what was not measured."""

from pathlib import Path

import pytest

from lmray.config import Budget, Data, Evaluation, Model, Run
from lmray.runs.run_directory import MetricsWriter, RunDirectory
from lmray.storage import write_json
from lmray.sweeps.answers.batches import batch_sizes, lines, table
from lmray.sweeps.answers.report import write_report
from lmray.sweeps.answers.tables import Sweep, read_sweep
from lmray.sweeps.ledger import Ledger
from lmray.sweeps.space import TO_THE_END, Space
from lmray.sweeps.sweep_directory import claim

BASE = Run(
    model=Model(context_length=64),
    data=Data(batch_size=8),
    budget=Budget(tokens=10_000_000),
    evaluation=Evaluation(interval_tokens=1_000_000),
)
RATES = (1e-3, 1e-2)


def planted(
    folder: Path, losses: dict[int, float], seeds: tuple[int, ...], noise: dict[int, float]
) -> Sweep:
    """A finished sweep over batches and two rates, the second of which is worse by 0.1 everywhere.

    A seed adds its hundredth to every loss, and at each batch another thousandth.
    """
    axes = {"data.batch_size": list(losses), "optim.lr": list(RATES)}
    space = Space("planted", "", BASE, axes, seeds, TO_THE_END)
    directory, runs = folder / "sweep", folder / "runs"
    claim(directory, space, "digest")
    ledger = Ledger(directory / "ledger.jsonl")
    for trial in space.trials("digest"):
        size, seed = trial.changes["data.batch_size"], trial.changes["seed"]
        loss = losses[size] + 0.1 * (trial.changes["optim.lr"] == RATES[1])
        loss += seed / 100 + ((size * (seed + 1)) ** 2 % 7) / 1000
        run = RunDirectory(runs / trial.id)
        run.begin(trial.run, trial.id, {"digest": "digest", "path": ""})
        writer = MetricsWriter(run.path / "metrics.jsonl")
        writer({"kind": "train", "step": 1, "tokens_per_s": 100.0 * size, "peak_memory_bytes": 5e9})
        writer.close()
        facts = {"tokens": 1, "bits_per_byte": 1.0, "perplexity": 1.0, "seconds": 1.0}
        ledger.append("done", trial.id, loss=loss, **facts)
        if size in noise:
            scale = {"noise_scale_sequences": noise[size], "low": noise[size] / 2, "high": None}
            row = {"step": 9, "tokens": 900, **scale}
            unknown = {**row, "step": 10, "noise_scale_sequences": None}
            write_json(run.path / "noise_scale.json", {"checkpoints": [row, unknown]})
    return read_sweep(directory, runs)


def test_the_best_rate_of_each_batch_is_compared_and_the_end_of_the_plateau_is_found(
    tmp_path: Path,
):
    sweep = planted(tmp_path, {4: 3.2, 16: 3.0, 64: 3.005, 256: 3.5}, (0, 1, 2), {16: 50, 64: 200})
    found = batch_sizes(sweep, tmp_path / "runs")
    header, rows = table(found, sweep)
    assert header[:3] == ["batch", "lr", "mean loss"]
    assert [row[:2] for row in rows] == [[str(b), "0.001"] for b in (4, 16, 64, 256)]
    assert [row[4] for row in rows] == ["3"] * 4
    assert rows[0][-3:-1] == ["400", "5.000"]
    assert [row[-1] for row in rows] == [
        "not measured",
        "50 (25 to inf)",
        "200 (100 to inf)",
        "not measured",
    ]
    plateau, critical = lines(found)
    assert (
        "is that of a batch of 16; the first larger one that is surely above it is 256, by"
        in plateau
    )
    assert "(n = 3)" in plateau
    assert "about 100 sequences" in critical, "the geometric mean of 50 and 200"
    assert "it was 50 to 200" in critical
    assert critical.endswith("not measured at 4, 256.")
    text = write_report(sweep, tmp_path / "runs").read_text()
    assert plateau in text
    assert critical in text
    assert plateau in (tmp_path / "sweep" / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ({4: 3.0, 16: 3.0, 64: 3.01}, "up to 64, is surely above it"),
        ({4: 3.0, 16: 2.9, 64: 2.8}, "a batch of 64, the largest tried"),
        ({4: 3.0, 16: 3.1, 64: 3.2}, "is 16, by +0.10"),
    ],
)
def test_one_seed_is_told_to_be_one_and_what_was_not_measured_not_to_be(
    tmp_path: Path, losses: dict[int, float], told: str
):
    sweep = planted(tmp_path, losses, (0,), {})
    found = batch_sizes(sweep, tmp_path / "runs")
    plateau, critical = lines(found)
    assert told in plateau
    assert critical.startswith("The gradient noise scale was not measured")
    ids = [batch.best.rows[0].trial.id for batch in found if batch.best]
    assert f"`lmray noise-scale {' '.join(ids)}`" in critical


def test_one_batch_size_is_no_comparison(tmp_path: Path):
    sweep = planted(tmp_path, {4: 3.0}, (0,), {})
    found = batch_sizes(sweep, tmp_path / "runs")
    assert table(found, sweep)[1] == []
    assert lines(found) == []
