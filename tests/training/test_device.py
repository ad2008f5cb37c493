"""Algorithms that repeat: what execution.deterministic sets, and exact resume on a GPU."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lmray.config import Model, Run, override
from lmray.errors import PreflightError, UsageError
from lmray.training import checkpoint
from lmray.training.device import set_determinism
from tests.small import small_run, trained

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(WORKSPACE, "")  # so that what a test sets is taken back
    monkeypatch.delenv(WORKSPACE)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


def once(run: Run, directory: Path, *, stop_after: int = 0) -> list[tuple]:
    """The losses of a training, and the checkpoint in `directory` that it leaves."""
    records = trained(run, directory, stop_after=stop_after)
    return [(r["kind"], r["step"], r["loss"]) for r in records if r["kind"] != "start"]


def files(directory: Path) -> list[bytes]:
    newest = checkpoint.newest_first(directory)[0]
    return [(newest / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")]


def test_determinism_is_set_for_a_run_and_not_left_to_the_next():
    set_determinism(True)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic
    assert os.environ[WORKSPACE] == ":4096:8"
    set_determinism(False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic


@pytest.mark.parametrize("workspace", [":16:8", ":4096:8"])
def test_a_workspace_that_repeats_is_left_as_it_is(workspace: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(WORKSPACE, workspace)
    set_determinism(True)
    assert os.environ[WORKSPACE] == workspace


def test_a_workspace_that_does_not_repeat_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(WORKSPACE, ":0:0")
    with pytest.raises(PreflightError, match=r"^CUBLAS_WORKSPACE_CONFIG=:0:0, .*set it to :4096:8"):
        set_determinism(True)
    set_determinism(False)


def test_kernels_chosen_by_their_speed_are_refused():
    changes = {"execution.deterministic": True, "execution.compile": "max-autotune"}
    with pytest.raises(UsageError, match=r"forbids; set execution\.compile=default"):
        override(Run(), changes)


def test_on_a_cpu_every_switch_runs_and_gives_the_curve_it_has_anyway(
    small_dataset: Path, tmp_path: Path
):
    run = override(
        small_run(small_dataset), {"budget.steps": 4, "optim.name": "muon", "model.num_layers": 2}
    )
    switches = {f"model.{name}": True for name in ("qk_norm", "value_embeddings", "unet_skips")}
    for name, changes in (("plain", {}), ("math", {"model.attention": "math"} | switches)):
        run = override(run, changes)
        usual = once(run, tmp_path / name)
        exact = override(run, {"execution.deterministic": True})
        assert once(exact, tmp_path / f"{name}-exact") == usual
        assert files(tmp_path / f"{name}-exact") == files(tmp_path / name)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::UserWarning:torch")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "bf16_weights"])
@pytest.mark.parametrize(
    "other",
    [
        {},
        {"model.attention": "math"},
        {"optim.name": "muon"},
        {"optim.name": "normuon", "model.value_embeddings": True},
        {"execution.compile": "default"},
    ],
    ids=str,
)
def test_on_a_gpu_a_resumed_run_is_the_straight_one(
    precision: str, other: dict, small_dataset: Path, tmp_path: Path
):
    """Large enough, and with ids that repeat in a batch, for sums to be split and raced."""
    model = Model(vocab_size=300, context_length=128, num_layers=2, d_model=128, num_heads=4)
    changes = {
        **other,
        "optim.precision": precision,
        "data.batch_size": 32,
        "budget.tokens": 12 * 32 * 128,
        "evaluation.interval_tokens": 4 * 32 * 128,
        "execution.device": "cuda",
        "execution.deterministic": True,
    }
    run = override(small_run(small_dataset, model=model, budget=Run().budget), changes)
    straight = once(run, tmp_path / "straight")
    begun = once(run, tmp_path / "broken", stop_after=5)
    assert begun + once(run, tmp_path / "broken") == straight
    assert files(tmp_path / "broken") == files(tmp_path / "straight")
