"""A trained run in the hands of transformers: its logits, its text, its tokenizer."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from lmray.config import override
from lmray.errors import PreflightError, UsageError
from lmray.generation import generate
from lmray.runs.exporting import export_model
from lmray.runs.trained import load_trained
from lmray.tokenizer import Tokenizer
from tests.small import END


@pytest.fixture(scope="module")
def folder(exported) -> Path:
    """The run as it is exported unless asked for something else."""
    return exported


@pytest.fixture(scope="module")
def theirs(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def their_tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_the_logits_are_those_of_the_run(trained, theirs):
    assert type(theirs) is transformers.LlamaForCausalLM
    assert theirs.dtype == torch.float32
    ids = torch.randint(trained.tokenizer.vocab_size, (4, 16))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, trained.model(ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prompt", [END, "Ada", " one small fish"])
def test_greedy_text_is_that_of_the_run(prompt, trained, theirs):
    ids = trained.tokenizer.encode(prompt)
    end, new = trained.tokenizer.end_of_text, 16 - len(ids)
    found = theirs.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=new
    )
    expected = generate(trained.model, ids, new, temperature=0, stop_tokens=[end])
    stopped = [end] if len(expected) < new else []  # theirs keeps what it stops at
    assert found[0].tolist() == ids + expected + stopped


TEXTS = st.lists(
    st.sampled_from([END, "Ada sees ", "\u00e9\u20ac", "  \n", "don't 12"]) | st.text()
)


@settings(max_examples=50)
@given(TEXTS.map("".join))
def test_the_tokenizer_gives_the_same_ids_and_the_text_back(trained, their_tokenizer, text):
    ids = their_tokenizer(text)["input_ids"]
    assert ids == trained.tokenizer.encode(text)
    assert their_tokenizer.decode(ids) == text


def test_documents_begin_and_end_with_the_separator(trained, theirs, their_tokenizer):
    end = trained.tokenizer.end_of_text
    for holder in (theirs.config, theirs.generation_config, their_tokenizer):
        assert (holder.bos_token_id, holder.eos_token_id) == (end, end)
    assert their_tokenizer.model_max_length == 16


def test_bf16_weights_are_the_runs_rounded(trained, folder, tmp_path):
    assert export_model(trained, tmp_path / "bf16", dtype="bf16")["dtype"] == "bfloat16"
    rounded = load_file(tmp_path / "bf16" / "model.safetensors")
    for name, weight in load_file(folder / "model.safetensors").items():
        assert torch.equal(rounded[name], weight.bfloat16())
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "bf16").dtype == (
        torch.bfloat16
    )
    # A run with bf16 weights has no others to give.
    other = replace(trained, run=override(trained.run, {"optim.precision": "bf16_weights"}))
    assert export_model(other, tmp_path / "auto")["dtype"] == "bfloat16"


def test_an_earlier_checkpoint_is_another_model(trained_run, folder, tmp_path):
    facts = export_model(load_trained(trained_run, "16"), tmp_path / "earlier")
    assert facts["step"] == 16
    earlier, last = (load_file(f / "model.safetensors") for f in (tmp_path / "earlier", folder))
    assert not torch.equal(earlier["lm_head.weight"], last["lm_head.weight"])
    with pytest.raises(PreflightError, match="no checkpoint of step 3; there are 20, 16"):
        load_trained(trained_run, "3")


def test_the_card_says_what_was_measured_and_on_what(trained_run, folder):
    card = (folder / "README.md").read_text()
    measured = trained_run.final_validation()
    for fact in (
        trained_run.path.name,
        trained_run.facts["data"]["digest"],
        f"step 20 on the whole split: {measured['loss']:.4f} nats/token",
        "1,280 tokens",
        "num_kv_heads: 1",
    ):
        assert fact in card


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_exporting_again_changes_nothing(trained, folder):
    before = contents(folder), folder.stat().st_ino
    export_model(trained, folder)
    assert (contents(folder), folder.stat().st_ino) == before


def test_a_folder_that_holds_something_else_is_kept(trained, folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    before = contents(folder)
    for taken in (tmp_path, folder):
        with pytest.raises(PreflightError, match="holds something else; choose another folder"):
            export_model(trained, taken, dtype="bf16")
    assert contents(tmp_path) == {"notes.txt": b"mine"}
    assert contents(folder) == before


def test_a_tokenizer_that_their_file_cannot_express_leaves_nothing(trained, tmp_path):
    vocab = {token: bytes([token]) for token in range(256)}
    vocab |= {256: b"\xc3\xa9", 257: "\u00e9".encode() * 2, 258: END.encode()}
    merges = [(b"\xc3", b"\xa9"), (b"\xc3\xa9", b"\xc3\xa9")]
    ambiguous = Tokenizer(vocab, merges, ["\u00e9\u00e9", END])
    with pytest.raises(UsageError, match=r"tokenizer\.json has one text for a token"):
        export_model(replace(trained, tokenizer=ambiguous), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_all_files_are_for_everybody_to_read(folder):
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert folder.stat().st_mode & 0o777 == 0o755
    assert json.loads((folder / "special_tokens_map.json").read_text())["eos_token"] == END
