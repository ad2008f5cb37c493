"""What a run writes at its evaluations: there, repeatable, and without a trace on its curve."""

import json
import math
from pathlib import Path

import pytest
import torch

from lmray import runs
from lmray.config import Evaluation, override, run_id
from lmray.dataset import Splits, open_splits
from lmray.errors import UsageError
from lmray.model import TransformerLM
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from lmray.runs.samples import SAMPLING, diversity, prompt_ids, sampler
from lmray.runs.trained import continue_text, load_trained
from lmray.storage import read_lines
from tests.small import small_run

PROMPTS = ("", "Ada sees")


@pytest.fixture(scope="module")
def splits(small_dataset: Path) -> Splits:
    return open_splits(small_dataset)


def sampled_run(splits: Splits, prompts: tuple[str, ...] = PROMPTS, **changes: object):
    evaluation = {"evaluation.prompts": prompts, "evaluation.sample_tokens": 24}
    return override(small_run(splits.directory), evaluation | changes)


def samples(directory: RunDirectory) -> list[dict]:
    return read_lines(directory.path / "samples.jsonl")


CURVE = ("kind", "scope", "step", "tokens", "lr", "loss", "gradient_norm", "update_ratio")


def curve(directory: RunDirectory) -> list[dict]:
    lines = read_lines(directory.path / "metrics.jsonl")
    return [{key: line.get(key) for key in CURVE} for line in lines]


@pytest.fixture(scope="module")
def straight(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    runs = tmp_path_factory.mktemp("straight")
    return execute(sampled_run(splits), splits, runs, report=lambda record: None)


def test_each_evaluation_has_a_text_for_each_prompt(straight: RunDirectory):
    evaluated = [r["step"] for r in straight.records("validation") if r["scope"] == "prefix"]
    found = samples(straight)
    assert [(r["step"], r["prompt"]) for r in found] == [
        (step, prompt) for step in evaluated for prompt in PROMPTS
    ]
    assert {r["kind"] for r in found} == {"sample"}
    assert [r["tokens"] for r in found] == [64 * r["step"] for r in found]
    assert all(0 <= r["new_tokens"] <= 24 for r in found)
    assert len({r["text"] for r in found if r["prompt"] == ""}) > 1


def test_a_sample_is_what_the_checkpoint_of_its_step_writes(straight: RunDirectory):
    trained = load_trained(straight)
    assert trained.step == samples(straight)[-1]["step"] == 20
    for record in samples(straight)[-2:]:
        (written,) = continue_text(
            trained,
            record["prompt"],
            max_new_tokens=24,
            sampling=type(SAMPLING)(**record["sampling"]),
            seed=record["seed"],
        )
        assert (written.text, len(written.ids)) == (record["text"], record["new_tokens"])


def test_many_texts_are_written_in_batches(straight: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    trained = load_trained(straight)
    options = {"max_new_tokens": 8, "sampling": SAMPLING, "seed": 2, "samples": 5}
    together = continue_text(trained, "Ada", **options)
    monkeypatch.setattr(runs.samples, "_AT_ONCE", 2)
    assert continue_text(trained, "Ada", **options) == together
    assert len(together) == 5


def test_a_run_is_bit_for_bit_the_same_with_and_without_samples(
    straight: RunDirectory, splits: Splits, tmp_path: Path
):
    without = execute(sampled_run(splits, ()), splits, tmp_path, report=lambda record: None)
    assert without.path.name == straight.path.name
    assert samples(without) == []
    assert curve(without) == curve(straight)
    for name in ("model.safetensors", "optimizer.safetensors"):
        last = Path("checkpoints/step-00000020") / name
        assert (without.path / last).read_bytes() == (straight.path / last).read_bytes()
    states = [
        json.loads((run.path / "checkpoints/step-00000020/state.json").read_text())["random"]
        for run in (without, straight)
    ]
    assert states[0] == states[1]


def test_an_interrupted_runs_samples_become_those_of_one_that_was_not(
    straight: RunDirectory, splits: Splits, tmp_path: Path
):
    class Died(Exception):
        pass

    def die(record: dict) -> None:
        if record["kind"] == "train" and record["step"] == 11:
            raise Died

    run = sampled_run(splits)
    with pytest.raises(Died):
        execute(run, splits, tmp_path, report=die)
    broken = RunDirectory(tmp_path / straight.path.name)
    assert samples(broken)[-1]["step"] == 10  # beyond the checkpoint of step 8: void
    with (broken.path / "samples.jsonl").open("ab") as file:
        file.write(b'{"a line that a kill has torn')
    execute(run, splits, tmp_path, report=lambda record: None)
    written = [(d.path / "samples.jsonl").read_bytes() for d in (broken, straight)]
    assert written[0] == written[1]


@pytest.mark.parametrize("precision", ["bf16", "bf16_weights"])
def test_models_of_every_precision_write(precision: str, splits: Splits, tmp_path: Path):
    run = sampled_run(splits, **{"optim.precision": precision, "budget.tokens": 5 * 64})
    found = samples(execute(run, splits, tmp_path, report=lambda record: None))
    assert len(found) == 4
    assert all(record["text"] for record in found)


def test_a_model_that_cannot_be_sampled_from_does_not_end_a_run(splits: Splits):
    run = sampled_run(splits)
    model = TransformerLM.from_config(run.model)
    with torch.no_grad():
        model.ln_final.weight.fill_(math.nan)
    found = sampler(run.evaluation, splits.tokenizer)(model)
    assert [record["prompt"] for record in found] == list(PROMPTS)
    assert all("diverged" in record["error"] and "text" not in record for record in found)


def test_samples_are_no_part_of_the_run_id(splits: Splits):
    ids = {run_id(sampled_run(splits, prompts), "d" * 64) for prompts in ((), ("a",), PROMPTS)}
    assert ids == {run_id(small_run(splits.directory), "d" * 64)}


def test_an_empty_prompt_begins_a_document(splits: Splits):
    assert prompt_ids(splits.tokenizer, "") == [splits.tokenizer.end_of_text]
    assert prompt_ids(splits.tokenizer, "Ada") == splits.tokenizer.encode("Ada")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation.prompts": "Once"}, r"evaluation.prompts='Once' is not a list"),
        ({"evaluation.prompts": [1]}, r"prompts.0=1 is not text; .* evaluation.prompts=\[''\]"),
        ({"evaluation.prompts": ["a"] * 17}, r"holds 17 texts .*; keep at most 16"),
        ({"evaluation.sample_tokens": 0}, r"sample_tokens=0 is not a whole number of at least 1"),
        ({"evaluation.sample_tokens": 2000}, r"sample_tokens=2000 is not .* at most 1024"),
    ],
)
def test_samples_that_would_hold_training_up_are_refused(changes: dict, message: str):
    with pytest.raises(UsageError, match=message):
        override(small_run(Path()), changes)
    assert override(small_run(Path()), {"evaluation.prompts": ["a"]}).evaluation == Evaluation(
        interval_tokens=320, prefix_tokens=256, prompts=("a",)
    )


def test_diversity_is_json_also_where_nothing_is_known():
    assert diversity([[1, 2, 1, 2, 1, 2]]) == {
        "texts": 1,
        "distinct_1": 2 / 6,
        "distinct_2": 2 / 5,
        "distinct_3": 2 / 4,
        "repetition": 1 - 2 / 3,
    }
    assert diversity([[]])["repetition"] is None
