"""`lmray tokenizer export|import` and `lmray data export|import`, as a user has them."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from lmray.cli.main import main
from tests.cli.test_cli import SMALL, lmray, one_line
from tests.small import write_dataset


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and a token dataset, both named small, and their exports."""
    folder = tmp_path_factory.mktemp("home")
    write_dataset(folder / "lmray-out")
    with pytest.MonkeyPatch.context() as patch:
        for format in ("gpt2", "tiktoken", "huggingface"):
            run(folder, patch, "tokenizer", "export", "small", f"t-{format}", "--format", format)
        for format in ("nanogpt", "llmc", "parquet"):
            run(folder, patch, "data", "export", "small", f"d-{format}", "--format", format)
    return folder


def run(home: Path, patch: pytest.MonkeyPatch, *words: str) -> int:
    """Runs a command in this process: importing torch anew for each would take a minute."""
    patch.chdir(home)
    patch.delenv("LMRAY_ROOT", raising=False)
    patch.setattr(sys, "argv", ["lmray", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    "files",
    [("t-gpt2/merges.txt", "t-gpt2/vocab.json"), ("t-tiktoken/tokenizer.tiktoken",),
     ("t-huggingface/tokenizer.json",)],
)  # fmt: skip
def test_an_exported_tokenizer_comes_back_under_another_name(
    home: Path,
    files: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("tokenizer", "import", *files, "--name", f"again-{len(files[0])}", "--json")
    for _ in range(2):
        assert run(home, monkeypatch, *words) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["special_tokens"] == {"<|endoftext|>": 299}
    own = json.loads((home / "lmray-out/tokenizer/small/tokenizer.json").read_text())
    made = home / "lmray-out" / "tokenizer" / f"again-{len(files[0])}"
    assert json.loads((made / "tokenizer.json").read_text())["vocab"] == own["vocab"]
    assert facts["fingerprint"] == own["fingerprint"]
    assert json.loads((made / "report.json").read_text()) == facts


def test_a_tiktoken_export_says_what_the_file_lacks(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("tokenizer", "export", "small", "other", "--format", "tiktoken")
    assert run(home, monkeypatch, *words) == 0
    found = capsys.readouterr().out
    assert found.startswith("other/tokenizer.tiktoken: 300 ids; the file lacks pat_str=")
    assert found.endswith("special_tokens={'<|endoftext|>': 299}\n")


@pytest.mark.slow
def test_imported_tokens_are_verified_described_and_trained_on(home: Path, tmp_path: Path) -> None:
    """In a root of its own, or training would find the run that has the same tokens."""
    ids = np.fromfile(home / "d-nanogpt" / "train.bin", dtype="<u2")
    np.save(tmp_path / "train.npy", ids)
    shutil.copytree(home / "lmray-out" / "tokenizer", tmp_path / "lmray-out" / "tokenizer")
    words = ("--valid", home / "d-llmc" / "val_000000.bin", "--tokenizer", "small", "--name", "d")
    lmray("data", "import", "--train", "train.npy", *words, cwd=tmp_path)
    facts = json.loads(lmray("data", "stat", "d", "--json", cwd=tmp_path).stdout)
    assert facts["train"]["tokens"] == len(ids)
    assert facts["train"]["documents"] == 400
    assert facts["train"]["bytes"] == (home / "lmray-out" / "train.txt").stat().st_size
    assert "as their manifest says" in lmray("data", "verify", "d", cwd=tmp_path).stdout
    two_steps = (*SMALL, "budget.tokens=128", "evaluation.interval_tokens=64", "--json")
    trained = json.loads(lmray("train", "data.tokens=d", *two_steps, cwd=tmp_path).stdout)
    assert trained["status"] == "done"
    assert trained["tokens"] == 128


T = ("--tokenizer", "small")
V = ("--valid", "d-nanogpt/val.bin")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("tokenizer", "export", "small", "t-gpt2", "--format", "gpt2"), 2, "is there already"),
        (("tokenizer", "export", "small", "x", "--format", "bpe"), 2, "choose gpt2, tiktoken, hug"),
        (("tokenizer", "export", "nosuch", "x", "--format", "gpt2"), 2, "cannot read tokenizer"),
        (("tokenizer", "import", "nosuch", "--name", "x"), 2, "cannot read nosuch"),
        (("tokenizer", "import", "t-gpt2/vocab.json", "--name", "x"), 2, "not the files of a"),
        (("tokenizer", "import", "t-gpt2/merges.txt", "--name", "x"), 1, "not a token in base64"),
        (("tokenizer", "import", "t-tiktoken/tokenizer.tiktoken", "--name", "small", "--special",
          "<|x|>=900"), 3, "holds another tokenizer; choose another --name"),
        (("tokenizer", "import", "t-huggingface/tokenizer.json", "--name", "x", "--special", "<z>"),
         2, "names its special tokens and split pattern; leave out --special"),
        (("tokenizer", "train", "lmray-out/train.txt", "--vocab-size", "300", "--name", "imported"),
         3, "holds another tokenizer (not the same"),
        (("data", "export", "small", "d-llmc", "--format", "llmc"), 2, "is there already"),
        (("data", "export", "small", "x", "--format", "npy"), 2, "choose nanogpt, llmc, parquet"),
        (("data", "import", "--train", "nosuch", *V, *T, "--name", "x"), 2, "cannot read nosuch"),
        (("data", "import", "--train", "d-parquet/train.parquet", *V, *T, "--name", "x"), 3,
         "is no token of this tokenizer, which has 300 ids"),
        (("data", "import", "--train", "d-nanogpt/train.bin", *V, *T, "--name", "x", "--format",
          "llmc"), 1, "has magic"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line_and_its_exit_code(
    home: Path,
    words: tuple[str, ...],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = ("t-gpt2/vocab.json", "t-gpt2/merges.txt")
    assert run(home, monkeypatch, "tokenizer", "import", *files, "--name", "imported") == 0
    capsys.readouterr()
    assert run(home, monkeypatch, *words) == code
    assert message in one_line(*capsys.readouterr())
    assert not (home / "lmray-out" / "tokens" / "x").exists()
    assert not (home / "lmray-out" / "tokenizer" / "x").exists()
