"""What a report says of batch sizes: the plateau, the noise scale, what was not measured, where
memory ends and what was held equal."""

import math
from pathlib import Path
from typing import Any

import pytest

from lmray.accounting import step_flops
from lmray.config import BatchShape, Budget, Data, Evaluation, Model, Run, override
from lmray.runs.run_directory import MetricsWriter, RunDirectory
from lmray.storage import write_json
from lmray.sweeps.answers.batches import batch_sizes, lines, table
from lmray.sweeps.answers.equal import held_equal
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
    folder: Path,
    losses: dict[int, float],
    seeds: tuple[int, ...],
    noise: dict[int, float],
    *,
    changes: dict[str, Any] | None = None,
    at_once: int = 10**6,
    device: str = "",
    tokens: dict[int, int] | None = None,
    memory_gb: float = math.inf,
) -> Sweep:
    """A finished sweep over batches and two rates, the second of which is worse by 0.1 everywhere.

    A seed adds its hundredth to every loss, and at each batch another thousandth. Each run trained
    what its budget pays for, or `tokens`, and computed `at_once` sequences at most.
    """
    axes = {"data.batch_size": list(losses), "optim.lr": list(RATES)}
    base = override(BASE, changes or {})
    space = Space("planted", "", base, axes, seeds, TO_THE_END, memory_gb=memory_gb)
    directory, runs = folder / "sweep", folder / "runs"
    claim(directory, space, "digest")
    ledger = Ledger(directory / "ledger.jsonl")
    for trial in space.trials("digest"):
        size, seed = trial.changes["data.batch_size"], trial.changes["seed"]
        loss = losses[size] + 0.1 * (trial.changes["optim.lr"] == RATES[1])
        loss += seed / 100 + ((size * (seed + 1)) ** 2 % 7) / 1000
        run = RunDirectory(runs / trial.id)
        run.begin(trial.run, trial.id, {"digest": "digest", "path": ""})
        run.note({"device": device} if device else {})
        writer = MetricsWriter(run.path / "metrics.jsonl")
        asked = trial.run.execution.micro_batch
        fits = size if asked == "auto" else min(size, asked)
        while fits > at_once:
            fits = (fits + 1) // 2
        measured = {"tokens_per_s": 100.0 * size, "peak_memory_bytes": 5e9, "micro_batch": fits}
        writer({"kind": "train", "step": 1, **measured, "micro_batch": min(size, 3)})  # in a ramp
        writer({"kind": "train", "step": 2, **measured})
        writer.close()
        trained = (tokens or {}).get(size, trial.run.training_tokens)
        facts = {"tokens": trained, "bits_per_byte": 1.0, "perplexity": 1.0, "seconds": 1.0}
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
    assert rows[0][-5:-1] == ["9,999,872", "all", "400", "5.000"]
    assert [row[-1] for row in rows] == [
        "not measured",
        "50 (25 to inf)",
        "200 (100 to inf)",
        "not measured",
    ]
    plateau, critical, *_ = lines(found, sweep)
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
    plateau, critical, *_ = lines(found, sweep)
    assert told in plateau
    assert critical.startswith("The gradient noise scale was not measured")
    ids = [batch.best.rows[0].trial.id for batch in found if batch.best]
    assert f"`lmray noise-scale {' '.join(ids)}`" in critical


def test_one_batch_size_is_no_comparison(tmp_path: Path):
    sweep = planted(tmp_path, {4: 3.0}, (0,), {})
    found = batch_sizes(sweep, tmp_path / "runs")
    assert table(found, sweep)[1] == []
    assert lines(found, sweep) == []


FOUR = {4: 3.0, 16: 3.0, 64: 3.0, 256: 3.0}


def test_the_table_says_how_many_sequences_the_runs_had_memory_for_and_where_it_ends(
    tmp_path: Path,
):
    sweep = planted(tmp_path, FOUR, (0,), {}, at_once=40)
    found = batch_sizes(sweep, tmp_path / "runs")
    header, rows = table(found, sweep)
    column = header.index("computed at once")
    assert [row[column] for row in rows] == ["all", "all", "32 of 64", "32 of 256"]
    memory = lines(found, sweep)[2]
    # 64 was tried and did not fit, 32 did: what a run of 40 at most can know.
    assert "of a batch of 64 32 sequences were computed at once and 64 did not fit" in memory
    assert "the limit lies from 32 to 63" in memory
    text = write_report(sweep, tmp_path / "runs").read_text()
    assert memory in text
    assert memory in (tmp_path / "sweep" / "report" / "report.html").read_text()


def test_a_limit_far_below_a_batch_is_told_as_it_was_found(tmp_path: Path):
    sweep = planted(tmp_path, {4: 3.0, 100: 3.0}, (0,), {}, at_once=11)
    memory = lines(batch_sizes(sweep, tmp_path / "runs"), sweep)[2]
    # 100, 50, 25, 13, 7
    assert "7 sequences were computed at once and 13 did not fit" in memory
    assert "from 7 to 12" in memory


@pytest.mark.parametrize(
    ("changes", "device", "told", "cells"),
    [
        ({}, "NVIDIA H200", "with up to 256 sequences at once: it lies beyond.", ["all"] * 4),
        ({}, "cpu", "at once; on a CPU none would", ["all"] * 4),
        (
            {"execution.micro_batch": 32},
            "NVIDIA H200",
            "with up to 32 sequences at once: it lies beyond.",
            ["all", "all", "32 of 64", "32 of 256"],
        ),
    ],
)
def test_memory_that_no_run_met_the_end_of_is_not_said_to_have_ended(
    tmp_path: Path, changes: dict, device: str, told: str, cells: list[str]
):
    sweep = planted(tmp_path, FOUR, (0,), {}, changes=changes, device=device)
    found = batch_sizes(sweep, tmp_path / "runs")
    header, rows = table(found, sweep)
    assert [row[header.index("computed at once")] for row in rows] == cells
    assert told in lines(found, sweep)[2]


@pytest.mark.parametrize(
    ("changes", "memory_gb", "told"),
    [
        (
            {},
            math.inf,
            "has room for 610 steps of the largest batch tried, 256, and for 152 steps of 1024.",
        ),
        ({}, 1000, "of 1024, which by accounting fits 1000 GB: memory does not end them."),
        ({}, 8, "of 1024, which takes 15.5 GB by accounting and there are 8 (--memory-gb)."),
        ({"budget.tokens": 65_535}, math.inf, "256, and for none of 1024: it ends the batches."),
    ],
)
def test_it_is_told_which_limit_the_next_batch_would_have_met(
    tmp_path: Path, changes: dict, memory_gb: float, told: str
):
    sweep = planted(tmp_path, FOUR, (0,), {}, changes=changes, memory_gb=memory_gb)
    assert told in lines(batch_sizes(sweep, tmp_path / "runs"), sweep)[3]


@pytest.mark.parametrize(
    ("changes", "tokens", "told", "limits"),
    [
        (
            {"budget.tokens": 163_840},
            {},
            "Compared at equal training tokens, 163,840 each, in whole steps.",
            "163,840 training tokens;",
        ),
        (
            {"budget.tokens": 170_000},
            {},
            "at equal training tokens, 163,840 to 169,984 each",
            "170,000 training tokens;",
        ),
        (
            {"budget.steps": 10},
            {},
            "equal steps, 10 each, and so at unequal training tokens: 2,560 to 163,840.",
            "10,000,000 training tokens, or 10 steps if they end sooner;",
        ),
        (
            {"budget.seconds": 60.0},
            {4: 5_120, 16: 10_240, 64: 20_480, 256: 32_768},
            "at equal seconds, 60 each (they took 1.0 to 1.0), and so at unequal training tokens: ",
            "10,000,000 training tokens, or 60 seconds if they end sooner;",
        ),
        (
            {"budget.steps": 100, "budget.tokens": 163_840},
            {},
            "equal work: batches of 4, 16 ended by steps, of 64, 256 ended by training tokens; ",
            "163,840 training tokens, or 100 steps if they end sooner;",
        ),
    ],
    ids=["tokens", "whole steps", "steps", "seconds", "mixed"],
)
def test_what_the_batches_had_equal_is_what_the_report_says(
    tmp_path: Path, changes: dict, tokens: dict[int, int], told: str, limits: str
):
    sweep = planted(tmp_path, FOUR, (0,), {}, changes=changes, tokens=tokens)
    assert told in held_equal(sweep.rows)
    path = write_report(sweep, tmp_path / "runs")
    for text in (path.read_text(), path.with_suffix(".html").read_text()):
        assert told in text
        assert limits in text
        assert (" at equal training tokens" in text) == ("at equal training tokens" in told)


def test_operations_may_be_what_is_equal(tmp_path: Path):
    paid = 20.5 * step_flops(BASE.model, BatchShape(256, 64))
    sweep = planted(tmp_path, {4: 3.0, 256: 3.0}, (0,), {}, changes={"budget.flops": paid})
    assert held_equal(sweep.rows).startswith(f"Compared at equal operations, {paid:.4g} each")


def test_nothing_is_said_to_be_equal_of_what_is_not_done(tmp_path: Path):
    axes = {"data.batch_size": [4, 16]}
    claim(tmp_path / "sweep", Space("planted", "", BASE, axes, (0,), TO_THE_END), "digest")
    assert held_equal(read_sweep(tmp_path / "sweep", tmp_path / "runs").rows) == ""
