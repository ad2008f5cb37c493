"""Training in bf16, compiled, and what records tell of a step's cost."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from lmray.config import Execution, override
from lmray.dataset import open_splits
from lmray.errors import PreflightError
from lmray.training import checkpoint
from lmray.training.compiling import _MODES, refuse_without_compiler
from lmray.training.loop import train
from tests.small import small_run, trained


def go(dataset: Path, directory: Path, changes: dict[str, Any], stop_after: int = 0) -> list[dict]:
    return trained(override(small_run(dataset), changes), directory, stop_after=stop_after)


def losses(records: list[dict]) -> list[float]:
    return [record["loss"] for record in records if "loss" in record]


@pytest.mark.parametrize("precision", ["tf32", "bf16", "bf16_weights"])
def test_losses_stay_near_those_of_fp32_and_resume_exactly(
    precision: str, small_dataset: Path, tmp_path: Path
):
    exact = losses(go(small_dataset, tmp_path / "fp32", {}))
    changes = {"optim.precision": precision}
    straight = go(small_dataset, tmp_path / "straight", changes)
    assert losses(straight) == pytest.approx(exact, rel=1e-2)
    assert (losses(straight) != exact) == precision.startswith("bf16")
    before = go(small_dataset, tmp_path / "broken", changes, stop_after=7)
    after = go(small_dataset, tmp_path / "broken", changes)
    assert losses(before) + losses(after) == losses(straight)
    assert torch.get_float32_matmul_precision() == ("high" if precision == "tf32" else "highest")
    torch.set_float32_matmul_precision("highest")


def test_bf16_weights_have_fp32_copies_in_the_checkpoint(small_dataset: Path, tmp_path: Path):
    go(small_dataset, tmp_path, {"optim.precision": "bf16_weights", "optim.name": "muon"})
    newest = checkpoint.newest_first(tmp_path)[0]
    weights, state = (load_file(newest / f"{name}.safetensors") for name in ("model", "optimizer"))
    for name, weight in weights.items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(state[f"{name}.master"].bfloat16(), weight)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


@pytest.mark.slow
# torch's compiler, about torch itself.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::UserWarning:torch")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 2])  # two share the batch
def test_a_compiled_run_has_the_losses_of_one_that_is_not(
    small_dataset: Path, tmp_path: Path, threads: int
):
    changes = {"execution.threads": threads}
    plain = go(small_dataset, tmp_path / "plain", changes)
    counters.clear()
    changes["execution.compile"] = "default"
    compiled = go(small_dataset, tmp_path / "compiled", changes)
    assert counters["stats"]["unique_graphs"] == 1, "steps compile nothing that was not reported"
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-5)
    assert plain[0]["compile_s"] == 0.0
    assert compiled[0]["compile_s"] > 0.1


def test_compiling_without_a_compiler_is_refused(small_dataset: Path, tmp_path: Path):
    from torch._inductor import config

    with (
        config.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(PreflightError, match=r"compile=default needs a C\+\+ compiler"),
    ):
        go(small_dataset, tmp_path, {"execution.compile": "default"})


def test_compiling_for_a_gpu_without_a_compiler_of_c_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(PreflightError, match=r"compile=default needs a C compiler .*install gcc"):
        refuse_without_compiler("default", torch.device("cuda"))
    monkeypatch.setenv("CC", "cc")
    refuse_without_compiler("default", torch.device("cuda"))


def test_records_tell_what_a_step_changed_and_cost(small_dataset: Path, tmp_path: Path):
    changes = {"execution.log_interval_steps": 5, "optim.weight_decay": 0.0}
    trained = [r for r in go(small_dataset, tmp_path, changes) if r["kind"] == "train"]
    assert [r["step"] for r in trained] == [1, 5, 10, 15, 20]
    for record in trained:
        # Adam moves a weight by about lr; the embeddings' are about one, most others smaller.
        assert 0.05 * record["lr"] < record["update_ratio"] < 10 * record["lr"]
        assert 0 <= record["data_wait_s"] < 5
        assert record["peak_memory_bytes"] > 50_000_000


@pytest.mark.slow
# torch's compiler, about torch itself.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::UserWarning:torch")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_parts_of_every_size_are_compiled_before_the_first_step(
    small_dataset: Path, tmp_path: Path
):
    """And what was compiled for another model is not counted as theirs."""
    changes = {"execution.compile": "default", "execution.micro_batch": 3}
    for norm in ("post", "pre"):
        run = override(small_run(small_dataset), {**changes, "model.norm": norm})
        counters.clear()
        graphs: list[int] = []

        def report(record: dict[str, Any], graphs: list[int] = graphs) -> None:
            graphs.append(counters["stats"]["unique_graphs"])

        splits = open_splits(small_dataset)
        train(run, splits, tmp_path / norm, identity={}, report=report)
        assert set(graphs) == {2}, "three sequences and the one that is left"


ON_A_GPU = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::UserWarning:torch"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]


@pytest.mark.parametrize("compiling", [pytest.param(c, marks=ON_A_GPU) for c in ("off", "default")])
@pytest.mark.parametrize("share_of_memory", [0.25, 0.0])  # tokens on the GPU, or read by a thread
def test_steps_between_records_do_not_wait_for_the_gpu(
    compiling: str, share_of_memory: float, small_dataset: Path, monkeypatch: pytest.MonkeyPatch
):
    from lmray.training import batches
    from lmray.training.worker import Worker

    monkeypatch.setattr(batches, "_SHARE_OF_MEMORY", share_of_memory)
    changes = {"optim.precision": "bf16", "execution.compile": compiling}
    changes |= {"execution.device": "cuda", "execution.micro_batch": 3}
    worker = Worker(override(small_run(small_dataset), changes), open_splits(small_dataset))
    for step in range(3):  # pinned memory is made
        worker.take_step(step, 1e-3, compares=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(3, 8):
            worker.take_step(step, 1e-3, compares=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "compiling", [pytest.param(c, marks=ON_A_GPU) for c in ("default", "max-autotune")]
)
def test_a_run_compiled_for_a_gpu_adds_up_its_parts(
    compiling: str, small_dataset: Path, tmp_path: Path
):
    """Gradients of one part outlive those of the next, also where CUDA graphs could be used."""
    changes = {"execution.device": "cuda", "execution.micro_batch": 1}
    plain = losses(go(small_dataset, tmp_path / "plain", changes))
    changes["execution.compile"] = compiling
    assert losses(go(small_dataset, tmp_path / "compiled", changes)) == pytest.approx(
        plain, rel=1e-3
    )


def test_no_mode_uses_cuda_graphs():
    """By torch's own table: what they return is theirs, and gradients are added to it."""
    for mode in get_args(Execution.model_fields["compile"].annotation):
        if mode != "off":
            options = torch._inductor.list_mode_options(_MODES[mode])
            assert not options.get("triton.cudagraphs", False)
