"""Models of Hugging Face's files as runs: bit for bit, and refused where they are another's."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmray.dataset import open_splits
from lmray.errors import CorruptionError, PreflightError, UsageError
from lmray.generation import Sampling
from lmray.runs.exporting import export_model
from lmray.runs.importing import import_model
from lmray.runs.run_directory import RunDirectory
from lmray.runs.trained import continue_text, load_trained, open_data
from lmray.training.accumulation import Room
from lmray.training.evaluation import evaluate
from tests.small import VOCAB_SIZE


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(exported, tmp_path / "model"))


def test_a_round_trip_changes_no_bit_of_a_weight(trained, folder, tmp_path):
    import_model(folder, RunDirectory(tmp_path / "back"))
    back = load_trained(RunDirectory(tmp_path / "back"))
    assert back.model.state_dict().keys() == trained.model.state_dict().keys()
    for name, weight in trained.model.state_dict().items():
        assert torch.equal(back.model.state_dict()[name], weight)
    assert back.tokenizer.fingerprint == trained.tokenizer.fingerprint
    assert (back.step, back.directory.status) == (0, "imported")
    export_model(back, tmp_path / "again")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert "Imported by lmray as `back`" in (tmp_path / "again" / "README.md").read_text()


def test_it_writes_and_scores_as_the_run_that_was_exported(trained, folder, tmp_path):
    import_model(folder, RunDirectory(tmp_path / "back"))
    back = load_trained(RunDirectory(tmp_path / "back"))
    sampling = Sampling(temperature=1.0)
    texts = [
        continue_text(one, "Ada", max_new_tokens=12, sampling=sampling, seed=5)
        for one in (trained, back)
    ]
    assert texts[0] == texts[1]
    valid = open_data(trained.directory).valid
    losses = [
        evaluate(
            one.model,
            valid,
            context_length=16,
            batch_size=8,
            max_tokens="all",
            device=one.device,
            room=Room("auto"),
        ).loss
        for one in (trained, back)
    ]
    assert losses[0] == losses[1] == pytest.approx(trained.directory.final_validation()["loss"])
    with pytest.raises(PreflightError, match="has no data of its own; name some with --tokens"):
        open_data(back.directory)


def test_bf16_stays_bf16(trained, tmp_path):
    export_model(trained, tmp_path / "model", dtype="bf16")
    import_model(tmp_path / "model", RunDirectory(tmp_path / "back"))
    export_model(load_trained(RunDirectory(tmp_path / "back")), tmp_path / "again")
    first, second = ((tmp_path / f / "model.safetensors").read_bytes() for f in ("model", "again"))
    assert first == second


@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
def test_a_model_that_transformers_wrote(family, folder, small_dataset, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=32,
        num_hidden_layers=2,
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=40,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    theirs = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    theirs.save_pretrained(folder)
    import_model(folder, RunDirectory(tmp_path / "theirs"))
    found = load_trained(RunDirectory(tmp_path / "theirs"))
    assert found.tokenizer.fingerprint == open_splits(small_dataset).tokenizer.fingerprint
    ids = torch.randint(VOCAB_SIZE, (2, 32))
    with torch.no_grad():
        torch.testing.assert_close(found.model(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_importing_again_changes_nothing_and_another_model_is_refused(trained, folder, tmp_path):
    directory = RunDirectory(tmp_path / "back")
    import_model(folder, directory)
    before = directory.facts
    assert import_model(folder, directory)["run"] == str(directory.path)
    assert directory.facts == before
    export_model(trained, tmp_path / "other", dtype="bf16")
    with pytest.raises(PreflightError, match="back holds something else"):
        import_model(tmp_path / "other", directory)
    with pytest.raises(PreflightError, match="holds something else"):
        import_model(folder, trained.directory)


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(path, **changes):
    save_file(load_file(path) | {k.replace("__", "."): v for k, v in changes.items()}, path)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            lambda f: (f / "tokenizer.json").unlink(),
            PreflightError,
            "has no tokenizer.json; name a folder with config.json, model.safetensors",
        ),
        (
            lambda f: change_json(f / "config.json", rms_norm_eps=1e-6),
            PreflightError,
            r"config\.json: rms_norm_eps=1e-06 and lmray's",
        ),
        (lambda f: (f / "config.json").write_text("{"), CorruptionError, "is not valid JSON"),
        (
            lambda f: change_json(f / "config.json", vocab_size=320),
            PreflightError,
            "vocab_size=320 and the tokenizer has 300 ids",
        ),
        (
            lambda f: change_json(f / "config.json", num_hidden_layers=1),
            CorruptionError,
            r"model\.safetensors: model\.layers\.1\..* is no tensor of the model",
        ),
        (
            lambda f: change_tensors(f / "model.safetensors", lm_head__weight=torch.ones(3, 3)),
            CorruptionError,
            r"lm_head\.weight has the shape \(3, 3\)",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes(
                (f / "model.safetensors").read_bytes()[:-1]
            ),
            CorruptionError,
            "model.safetensors: ",
        ),
        (
            lambda f: change_json(f / "tokenizer.json", normalizer={"type": "NFC"}),
            UsageError,
            "normalizer=.* changes the text",
        ),
    ],
)
def test_a_folder_that_is_no_model_of_ours_leaves_nothing(damage, error, message, folder, tmp_path):
    damage(folder)
    with pytest.raises(error, match=message):
        import_model(folder, RunDirectory(tmp_path / "runs" / "back"))
    assert list(tmp_path.glob("runs/*")) + list(tmp_path.glob("runs/.*")) == []
