"""Trainings on a GPU beside a CPU's: every architecture, optimizer and precision, two of them."""

import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lmray.accounting import peak_flops
from lmray.config import Run, override
from lmray.training.optimizers import muon
from tests.devices import DEVICES
from tests.model.architectures import ONE_SWITCH
from tests.small import small_run, trained


def curve(run: Run, directory: Path) -> list[float]:
    """All losses, of training and validation, in their order."""
    return [record["loss"] for record in trained(run, directory) if record["kind"] != "start"]


def on(device: str, run: Run) -> Run:
    return override(run, {"execution.device": device})


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["math", "sdpa"])
@pytest.mark.parametrize("changes", ONE_SWITCH, ids=str)
def test_every_architecture_follows_the_cpus_curve(
    changes: dict[str, Any], attention: str, small_dataset: Path, tmp_path: Path
):
    switches = {"attention": attention, "num_layers": 3, **changes}
    run = override(small_run(small_dataset), {f"model.{k}": v for k, v in switches.items()})
    expected = curve(run, tmp_path / "cpu")
    assert curve(on("cuda", run), tmp_path / "cuda") == pytest.approx(expected, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("changes", [{"momentum": 0.9}, {"clip_norm": "none"}], ids=str)
def test_descent_follows_the_cpus_curve(changes: dict[str, Any], small_dataset: Path, tmp_path):
    changes = {"name": "sgd", "lr": 0.1, **changes}
    run = override(small_run(small_dataset), {f"optim.{k}": v for k, v in changes.items()})
    expected = curve(run, tmp_path / "cpu")
    assert curve(on("cuda", run), tmp_path / "cuda") == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["muon", "normuon"])
def test_orthogonalising_in_bf16_leaves_a_curve_where_it_is(
    name: str,
    device: str,
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """As a GPU iterates; a CPU does so here alone."""
    run = override(small_run(small_dataset), {"optim.name": name, "model.num_layers": 2})
    exact = curve(run, tmp_path / "exact")
    true = muon.orthogonalised
    monkeypatch.setattr(muon, "orthogonalised", lambda x: true(x, torch.bfloat16))
    found = curve(on(device, run), tmp_path / "rounded")
    assert found == pytest.approx(exact, rel=1e-2)
    assert found != exact


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["bf16", "bf16_weights"])
def test_bf16_ends_within_the_noise_of_fp32(
    precision: str, device: str, small_dataset: Path, tmp_path: Path
):
    """That of other seeds, of which there are five."""
    changes = {"budget.tokens": 100 * 64, "execution.log_interval_steps": 100}
    run = override(on(device, small_run(small_dataset)), changes)
    ends: dict[str, list[float]] = {"fp32": [], precision: []}
    for seed in range(5):
        for chosen, found in ends.items():
            settings = {"seed": seed, "optim.precision": chosen}
            found.append(curve(override(run, settings), tmp_path / f"{chosen}-{seed}")[-1])
    assert ends[precision] != ends["fp32"]
    assert abs(fmean(ends[precision]) - fmean(ends["fp32"])) < stdev(ends["fp32"])


@pytest.mark.gpu
def test_a_run_begun_on_a_gpu_is_finished_on_a_cpu(small_dataset: Path, tmp_path: Path):
    run = small_run(small_dataset)
    expected = curve(run, tmp_path / "cpu")
    begun = trained(on("cuda", run), tmp_path / "both", stop_after=7)
    finished = trained(run, tmp_path / "both")
    assert (begun[-1]["step"], finished[0]["step"]) == (7, 7)
    found = [record["loss"] for record in begun + finished if record["kind"] != "start"]
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_a_gpus_records_have_its_rates(precision: Any, small_dataset: Path, tmp_path: Path):
    changes = {"optim.precision": precision, "execution.log_interval_steps": 10}
    records = trained(override(on("cuda", small_run(small_dataset)), changes), tmp_path)
    name = torch.cuda.get_device_name()
    assert records[0]["device"] == name
    for record in (each for each in records if each["kind"] == "train"):
        assert record["tokens_per_s"] > 0
        assert record["tflop_per_s"] > 0
        assert record["peak_memory_bytes"] > 12 * records[0]["parameters"]
        if peak_flops(name, precision) is None:
            assert record["mfu"] is None
        else:
            assert 0 < record["mfu"] < 1


def _rank(rank: int, run: Run, folder: Path) -> None:
    torch.set_num_threads(1)
    on_gpus = run.execution.device == "cuda"
    if on_gpus:
        torch.cuda.set_device(rank)
    backend, meet = "nccl" if on_gpus else "gloo", f"file://{folder}/meet"
    dist.init_process_group(backend, init_method=meet, rank=rank, world_size=2)
    losses = curve(run, folder / "run")
    (folder / f"{rank}.json").write_text(json.dumps(losses))
    dist.destroy_process_group()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16_weights"])
def test_two_devices_have_the_losses_of_one(
    precision: str,
    device: str,
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # a sandbox's host name may not resolve
    run = override(on(device, small_run(small_dataset)), {"optim.precision": precision})
    alone = curve(run, tmp_path / "alone")
    mp.spawn(_rank, args=(run, tmp_path), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first == pytest.approx(alone, rel=1e-5 if precision == "fp32" else 1e-2)
