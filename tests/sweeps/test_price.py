from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lmray.accounting import num_parameters, training_flops, training_memory
from lmray.config import Budget, Data, Evaluation, Execution, Run, override
from lmray.errors import PreflightError
from lmray.machine import GB
from lmray.runs.run_directory import MetricsWriter, RunDirectory
from lmray.sweeps.answers.tables import read_sweep
from lmray.sweeps.axes import LogUniform
from lmray.sweeps.ledger import Ledger
from lmray.sweeps.price import (
    Price,
    against_taken,
    check_price,
    duration,
    price,
    read_price,
    taken,
    write_price,
)
from lmray.sweeps.search import Tpe
from lmray.sweeps.space import TO_THE_END, Space
from lmray.sweeps.speed import measured, trials_at_once
from lmray.sweeps.sweep_directory import claim
from tests.small import small_run

BASE = Run(
    data=Data(batch_size=100),
    budget=Budget(tokens=2_560_000),
    evaluation=Evaluation(interval_tokens=1_280_000, prefix_tokens=30_000),
    execution=Execution(keep_checkpoints=3),
)
SPACE = Space("p", "", BASE, {"optim.lr": [1e-4, 1e-3, 1e-2]}, (0, 1), TO_THE_END)


def test_a_price_is_what_its_runs_add_up_to():
    found = price(SPACE, 300_000, tokens_per_s=1000, at_once=2)
    # Three evaluations of the prefix and one of the split, which cost a third of training.
    evaluated = (3 * 30_000 + 300_000) / 3
    assert (found.trials, found.tokens) == (6, 6 * 2_560_000)
    assert found.hours == pytest.approx(6 * (2_560_000 + evaluated) / 1000 / 2 / 3600)
    per_token = training_flops(BASE.model, 256) / 256
    assert found.flops == pytest.approx(6 * per_token * 2_560_000)
    assert found.disk_bytes == 6 * 12 * num_parameters(BASE.model) * 3
    assert found.loser_bytes == 4 * num_parameters(BASE.model)
    needed = training_memory(BASE.model).total(100)
    assert found.memory_bytes == needed
    on_cpu = price(SPACE, 300_000, tokens_per_s=1000, at_once=2, on_cpu=True)
    assert on_cpu == replace(found, memory_bytes=GB + needed * 3 // 2), "a process's"


def test_a_larger_model_takes_as_much_longer_as_it_computes_more():
    both = replace(SPACE, axes={"model.num_layers": [4, 12]}, seeds=(0,))
    one = replace(SPACE, axes={"model.num_layers": [4]}, seeds=(0,))
    deep = override(BASE, {"model.num_layers": 12})
    ratio = training_flops(deep.model, 256) / training_flops(BASE.model, 256)
    hours = [price(s, 0, tokens_per_s=1000, at_once=1).hours for s in (one, both)]
    assert hours[1] / hours[0] == pytest.approx(1 + ratio)


def test_memory_seen_on_a_gpu_is_scaled_to_the_largest_trial():
    both = replace(SPACE, axes={"model.num_layers": [4, 12]}, seeds=(0,))
    deep = override(BASE, {"model.num_layers": 12})
    needed = [training_memory(run.model).total(100) for run in (BASE, deep)]
    seen = price(both, 0, tokens_per_s=1000, at_once=1, gpu_bytes=10**9)
    assert seen.gpu_bytes == pytest.approx(10**9 * needed[1] / needed[0])
    assert price(both, 0, tokens_per_s=1000, at_once=1).gpu_bytes == 0, "not looked at"


def test_seconds_of_a_budget_bound_the_price():
    timed = replace(SPACE, base=override(BASE, {"budget.seconds": 60.0}))
    found = price(timed, 300_000, tokens_per_s=1000, at_once=1)
    assert found.hours == pytest.approx(6 * 60 / 3600)
    assert found.tokens < 6 * 60 * 1000


def test_a_search_costs_what_all_its_trials_do():
    searched = replace(SPACE, axes={"optim.lr": LogUniform(1e-4, 1e-2)}, search=Tpe(12, first=4))
    found = price(searched, 0, tokens_per_s=1000, at_once=1)
    assert (found.trials, found.tokens) == (24, 24 * 2_560_000)


def test_what_is_too_long_or_too_large_is_refused_with_a_remedy(tmp_path: Path):
    asked = price(SPACE, 300_000, tokens_per_s=1000, at_once=1)
    check_price(asked, tmp_path / "not" / "there", max_hours=24)
    with pytest.raises(PreflightError, match=r"up to 4\.5 hours and --max-hours=4; .*or say --yes"):
        check_price(asked, tmp_path, max_hours=4)
    with pytest.raises(PreflightError, match=r"and --max-disk=0\.001; lower execution\.keep_ch"):
        check_price(asked, tmp_path, max_hours=24, max_disk_gb=1e-3)
    check_price(asked, tmp_path, max_hours=24, max_disk_gb=asked.disk_bytes / 1e9)
    with pytest.raises(PreflightError, match=r"checkpoints take 1e\+09 GB .* or say --yes"):
        check_price(replace(asked, disk_bytes=10**18), tmp_path, max_hours=24)


@pytest.mark.parametrize(
    ("hours", "text"), [(10 / 3600, "10 s"), (0.5, "30.0 minutes"), (30, "30.0 hours")]
)
def test_durations_are_said_in_a_fitting_unit(hours: float, text: str):
    assert duration(hours) == text


def test_the_price_is_kept_and_set_against_what_was_taken(tmp_path: Path):
    directory, runs = tmp_path / "sweep", tmp_path / "runs"
    claim(directory, SPACE, "digest")
    assert read_price(directory) is None
    asked = price(SPACE, 0, tokens_per_s=1000, at_once=1)
    write_price(directory, asked)
    assert read_price(directory) == asked
    ledger = Ledger(directory / "ledger.jsonl")
    trial = SPACE.trials("digest")[0]
    run = RunDirectory(runs / trial.id)
    run.begin(trial.run, trial.id, {"digest": "digest", "path": ""})
    writer = MetricsWriter(run.path / "metrics.jsonl")
    writer({"kind": "train", "step": 1, "peak_memory_bytes": 5_000_000_000})
    writer.close()
    facts = {"loss": 3.0, "tokens": 2_560_000, "bits_per_byte": 1.0, "perplexity": 20.0}
    ledger.append("done", trial.id, **facts, seconds=9.0)
    took = taken(read_sweep(directory, runs), runs)
    assert (took["trials"], took["tokens"]) == (1, 2_560_000)
    assert took["flops"] == training_flops(BASE.model, 2_560_000)
    assert took["memory_bytes"] == 5_000_000_000
    files = [run.path, *run.path.iterdir()]
    assert took["disk_bytes"] == sum(512 * file.stat().st_blocks for file in files)
    _, rows = against_taken(asked, took)
    assert rows[1] == ["tokens", "15,360,000", "2,560,000"]


def test_speed_is_measured_on_the_data(small_dataset: Path):
    run = small_run(small_dataset)
    found = measured(run, small_dataset)
    assert found.tokens_per_s > 0
    assert found.gpu_bytes == 0, "on a CPU"
    many = override(run, {"data.batch_size": 64, "execution.workers": 64})
    assert trials_at_once(many.execution, GB) == 1
    assert trials_at_once(run.execution, 10**15) == 1, "more than this machine's memory"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_what_runs_on_a_gpu_is_not_timed_on_a_machine_that_has_none(small_dataset: Path):
    run = override(small_run(small_dataset), {"execution.device": "cuda"})
    with pytest.raises(PreflightError, match=r"device=cuda, and the price .*; say --tokens-per-s"):
        measured(run, small_dataset)
    assert trials_at_once(run.execution, GB) == 1, "the most that it can take"


def test_a_price_is_one_line():
    line = price(SPACE, 0, tokens_per_s=1000, at_once=1).sentence()
    assert "6 trials, 15,360,000 tokens" in line
    assert "\n" not in line
    assert "GPU" not in line
    seen = price(SPACE, 0, tokens_per_s=1000, at_once=1, gpu_bytes=1_250_000_000).sentence()
    assert "of memory a trial (1.25 GB of a GPU's as measured), " in seen
    assert isinstance(price(SPACE, 0, tokens_per_s=1, at_once=1), Price)
