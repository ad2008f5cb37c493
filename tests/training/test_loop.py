import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lmray import presets
from lmray.config import Budget, Evaluation, Execution, Model, Optim, override
from lmray.dataset import open_splits
from lmray.errors import PreflightError
from lmray.model import TransformerLM, cross_entropy
from lmray.training import checkpoint
from lmray.training.device import resolve_device
from lmray.training.loop import evaluates_after, train
from tests.devices import DEVICES
from tests.small import small_run

IDENTITY = {"experiment": "test"}


def run_loop(run, dataset: Path, directory: Path, *, stop_after: int = 0) -> tuple[Any, list[dict]]:
    """The outcome and the records of a training; `stop_after` steps it is interrupted."""
    records: list[dict] = []

    def interrupted() -> bool:
        return bool(stop_after) and records[-1]["step"] >= stop_after

    outcome = train(
        run,
        open_splits(dataset),
        directory,
        identity=IDENTITY,
        report=records.append,
        interrupted=interrupted,
    )
    return outcome, records


def losses(records: list[dict]) -> list[tuple]:
    return [(r["kind"], r["step"], r["loss"]) for r in records if r["kind"] != "start"]


def weights(directory: Path) -> bytes:
    return (checkpoint.newest_first(directory)[0] / "model.safetensors").read_bytes()


def test_a_run_learns_and_reports_every_step_and_evaluation(small_dataset: Path, tmp_path: Path):
    run = small_run(small_dataset, budget=Budget(tokens=150 * 64))
    outcome, records = run_loop(run, small_dataset, tmp_path)
    assert (outcome.status, outcome.step, outcome.tokens) == ("done", 150, 150 * 64)
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 151))
    validations = [r for r in records if r["kind"] == "validation"]
    steps = [(r["step"], r["scope"]) for r in validations]
    assert steps == [(s, "prefix") for s in range(0, 151, 5)] + [(150, "all")]
    assert validations[0]["loss"] == pytest.approx(math.log(300), rel=0.02)
    assert validations[-1]["loss"] < 2.5
    assert validations[-1]["scored_tokens"] == len(open_splits(small_dataset).valid) - 1


def test_interrupted_and_continued_equals_uninterrupted_bit_for_bit(
    small_dataset: Path, tmp_path: Path
):
    run = small_run(small_dataset)
    _, straight = run_loop(run, small_dataset, tmp_path / "straight")
    for stop_after in (1, 7, 19):
        folder = tmp_path / f"stopped-{stop_after}"
        first, before = run_loop(run, small_dataset, folder, stop_after=stop_after)
        assert (first.status, first.step) == ("preempted", stop_after)
        second, after = run_loop(run, small_dataset, folder)
        assert after[0] == {"kind": "start", "step": stop_after} | {
            key: after[0][key]
            for key in ("parameters", "compile_s", "device", "workers", "peak_memory_of")
        }
        assert second.status == "done"
        assert losses(before) + losses(after) == losses(straight)
        assert weights(folder) == weights(tmp_path / "straight")


def test_a_damaged_newest_checkpoint_costs_steps_not_exactness(small_dataset: Path, tmp_path: Path):
    run = small_run(small_dataset)
    run_loop(run, small_dataset, tmp_path / "straight")
    run_loop(run, small_dataset, tmp_path / "hurt", stop_after=10)
    newest = checkpoint.newest_first(tmp_path / "hurt")[0] / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    _, records = run_loop(run, small_dataset, tmp_path / "hurt")
    assert records[0]["step"] == 8
    assert weights(tmp_path / "hurt") == weights(tmp_path / "straight")


def test_same_seed_same_curve_other_seed_another(small_dataset: Path, tmp_path: Path):
    run = small_run(small_dataset)
    _, first = run_loop(run, small_dataset, tmp_path / "a")
    _, again = run_loop(run, small_dataset, tmp_path / "b")
    _, other = run_loop(override(run, {"seed": 1}), small_dataset, tmp_path / "c")
    assert losses(first) == losses(again)
    assert losses(first)[0] != losses(other)[0]


@pytest.mark.parametrize("device", DEVICES)
def test_divergence_is_an_outcome_and_its_step_is_not_taken(
    device: str, small_dataset: Path, tmp_path: Path
):
    run = small_run(small_dataset, optim=Optim(lr=1.0, clip_norm="none", warmup_fraction=0.0))
    changes = {"budget.tokens": 3000 * 64, "model.num_layers": 3, "execution.device": device}
    run = override(run, changes)
    outcome, records = run_loop(run, small_dataset, tmp_path)
    assert outcome.status == "diverged"
    last = records[-1]
    assert last["kind"] == "train"
    assert last["step"] == outcome.step
    assert last["loss"] is None or last["loss"] > 2 * math.log(300) or last["gradient_norm"] is None
    assert all(path.name != f"step-{outcome.step:08d}" for path in tmp_path.iterdir())


@pytest.mark.parametrize("device", DEVICES)
def test_a_planted_nan_diverges_before_it_reaches_a_checkpoint(
    device: str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from lmray.training import compiling

    true_loss = compiling.mean_cross_entropy
    calls = []

    def poisoned(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return true_loss(logits, targets) * (math.nan if len(calls) == 6 else 1.0)

    monkeypatch.setattr(compiling, "mean_cross_entropy", poisoned)
    run = override(small_run(small_dataset), {"execution.device": device})
    outcome, records = run_loop(run, small_dataset, tmp_path)
    assert (outcome.status, outcome.step) == ("diverged", 6)
    assert records[-1]["loss"] is None
    assert checkpoint.newest_first(tmp_path)[0].name == "step-00000004"


def test_divergence_that_is_not_waited_for_is_found_before_weights_are_saved(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As on a GPU, where losses stay on the device until a record, evaluation or checkpoint."""
    from lmray.training import loop, worker

    class Eager(worker.Worker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.waits = False

        def take_step(self, step: int, lr: float, *, compares: bool) -> Any:
            if step == 5:
                with torch.no_grad():
                    self.model.lm_head.weight[0, 0] = math.nan
            return super().take_step(step, lr, compares=compares)

    run = override(small_run(small_dataset), {"execution.log_interval_steps": 1000})
    _, straight = run_loop(run, small_dataset, tmp_path / "straight")
    monkeypatch.setattr(loop, "Worker", Eager)
    outcome, records = run_loop(run, small_dataset, tmp_path / "hurt")
    # Step 6 is poisoned, the checkpoint of step 8 would hold what came of it.
    assert (outcome.status, outcome.step) == ("diverged", 6)
    assert (records[-1]["step"], records[-1]["loss"]) == (6, None)
    assert checkpoint.newest_first(tmp_path / "hurt")[0].name == "step-00000004"
    assert losses(records)[:-1] == losses(straight)[: len(records) - 2]


def test_several_workers_ask_each_other_where_they_wait_anyway_and_now_and_then(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As on GPUs, for each of which a question to all is waited for."""
    from lmray.training import loop, worker

    asked: list[int] = []

    class OnGPUs(worker.Worker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            assert self.agrees_every == 1, "alone there is nobody to wait for"
            self.waits, self.agrees_every = False, worker._AGREES_EVERY

        def take_step(self, step: int, lr: float, *, compares: bool) -> Any:
            self.step = step + 1
            return super().take_step(step, lr, compares=compares)

        def agree(self, flag: bool) -> bool:
            asked.append(self.step)
            return flag

    changes = {
        "execution.log_interval_steps": 1000,
        "execution.checkpoint_interval_steps": 13,
        "evaluation.interval_tokens": 10 * 64,
    }
    monkeypatch.setattr(loop, "Worker", OnGPUs)
    run = override(small_run(small_dataset), changes)
    outcome, _ = run_loop(run, small_dataset, tmp_path)
    assert outcome.status == "done"
    assert asked == [1, 8, 10, 13, 16, 20]  # a record, eight, evaluation, checkpoint, eight, end


def test_a_last_update_that_overflows_is_a_divergence_and_leaves_no_checkpoint(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from lmray.training import loop, worker

    class Overflowing(worker.Worker):
        def take_step(self, step: int, lr: float, *, compares: bool) -> Any:
            taken = super().take_step(step, lr, compares=compares)
            if step == 19:
                with torch.no_grad():
                    self.model.lm_head.weight[0, 0] = math.inf
            return taken

    run = small_run(small_dataset)
    _, straight = run_loop(run, small_dataset, tmp_path / "straight")
    monkeypatch.setattr(loop, "Worker", Overflowing)
    outcome, records = run_loop(run, small_dataset, tmp_path / "hurt")
    assert (outcome.status, outcome.step, outcome.tokens) == ("diverged", 20, 20 * 64)
    assert (records[-1]["scope"], records[-1]["loss"]) == ("all", None)
    assert checkpoint.newest_first(tmp_path / "hurt")[0].name == "step-00000016"
    assert losses(records)[:-2] == losses(straight)[:-2]


@pytest.mark.parametrize(("limit", "share"), [("none", 0.0), (1e-6, 1.0), (1e6, 0.0)])
def test_records_tell_the_share_of_clipped_steps(
    limit: Any, share: float, small_dataset: Path, tmp_path: Path
):
    run = small_run(small_dataset, optim=Optim(clip_norm=limit))
    run = override(run, {"execution.log_interval_steps": 6, "budget.steps": 8})
    _, records = run_loop(run, small_dataset, tmp_path)
    trained = [r for r in records if r["kind"] == "train"]
    assert [r["step"] for r in trained] == [1, 6, 8]
    assert [r["clipped_share"] for r in trained] == [share] * 3
    assert all(r["gradient_norm"] > 1e-3 for r in trained)


def test_the_share_of_clipped_steps_counts_every_step_since_the_record_before(
    small_dataset: Path, tmp_path: Path
):
    run = override(small_run(small_dataset), {"optim.clip_norm": 0.86})
    _, every = run_loop(run, small_dataset, tmp_path / "every")
    run = override(run, {"execution.log_interval_steps": 10})
    _, tenth = run_loop(run, small_dataset, tmp_path / "tenth")
    norms = [r["gradient_norm"] for r in every if r["kind"] == "train"]
    shares = [r["clipped_share"] for r in tenth if r["kind"] == "train"]
    parts = norms[:1], norms[1:10], norms[10:]
    assert shares == [sum(norm > 0.86 for norm in part) / len(part) for part in parts]
    assert 0 < sum(shares) < 3


def test_evaluation_happens_at_the_first_step_past_each_interval(small_dataset: Path):
    run = small_run(small_dataset, evaluation=Evaluation(interval_tokens=150, prefix_tokens=256))
    # 64 tokens a step: 150 is crossed by step 3 (192), 300 by step 5 (320), 450 by step 8 (512).
    assert [s for s in range(1, 9) if evaluates_after(s, run.batches, 150)] == [3, 5, 8]


def test_a_vocabulary_that_is_not_the_tokenizers_is_refused(small_dataset: Path, tmp_path: Path):
    run = override(small_run(small_dataset), {"model.vocab_size": 301})
    with pytest.raises(PreflightError, match=r"has 300 ids; set model\.vocab_size=300"):
        run_loop(run, small_dataset, tmp_path)


def test_a_validation_split_shorter_than_a_window_is_refused(small_dataset: Path, tmp_path: Path):
    model = Model(vocab_size=300, context_length=8192, num_layers=1, d_model=16, num_heads=2)
    run = small_run(
        small_dataset,
        model=model,
        budget=Budget(tokens=10**6),
        evaluation=Evaluation(prefix_tokens=8192),
    )
    with pytest.raises(PreflightError, match=r"window needs 8193; use more validation text"):
        run_loop(run, small_dataset, tmp_path)


def test_a_checkpoint_of_another_config_is_refused(small_dataset: Path, tmp_path: Path):
    run_loop(small_run(small_dataset), small_dataset, tmp_path, stop_after=4)
    with pytest.raises(PreflightError, match="experiment is 'test' there and 'other' here"):
        train(
            small_run(small_dataset),
            open_splits(small_dataset),
            tmp_path,
            identity={"experiment": "other"},
            report=lambda record: None,
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(PreflightError, match=r"set execution\.device=cpu"):
        resolve_device("cuda")


@pytest.mark.gpu
def test_the_gpu_follows_the_cpus_curve(small_dataset: Path, tmp_path: Path):
    run = small_run(small_dataset)
    _, on_cpu = run_loop(run, small_dataset, tmp_path / "cpu")
    on_gpu_run = run.model_copy(
        update={"execution": Execution(device="cuda", log_interval_steps=1)}
    )
    _, on_gpu = run_loop(on_gpu_run, small_dataset, tmp_path / "gpu")
    for (_, _, a), (_, _, b) in zip(losses(on_cpu), losses(on_gpu), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_gradients_on_two_threads_are_the_same_bits_every_time():
    run = presets.tiny()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(0)
        model = TransformerLM.from_config(run.model)
        shape = (run.data.batch_size, run.model.context_length)
        inputs, targets = torch.randint(0, run.model.vocab_size, (2, *shape))
        seen = set()
        for _ in range(8):
            model.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            gradients = [p.grad.numpy().tobytes() for p in model.parameters()]
            seen.add(hashlib.sha256(b"".join(gradients)).hexdigest())
    finally:
        torch.set_num_threads(before)
    assert len(seen) == 1
