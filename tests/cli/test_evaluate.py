"""`lmray eval` and `lmray generate` on a run, in this process."""

import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from lmray.cli.generate import generate_text
from lmray.cli.main import main
from lmray.cli.show import result
from lmray.dataset import open_splits
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from lmray.runs.samples import SAMPLING
from tests.small import small_run

Verb = Callable[..., tuple[str, str, int]]


@pytest.fixture(scope="module")
def run(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    root = tmp_path_factory.mktemp("root")
    splits = open_splits(small_dataset)
    return execute(small_run(small_dataset), splits, root / "runs", report=lambda record: None)


@pytest.fixture
def lmray(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verb:
    def call(*words: object) -> tuple[str, str, int]:
        monkeypatch.setattr(sys, "argv", ["lmray", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return *capsys.readouterr(), code

    return call


def test_eval_prints_a_table_and_leaves_everything_in_a_file(run: RunDirectory, lmray: Verb):
    printed, noted, code = lmray("eval", run.path)
    assert code == 0
    final = run.final_validation()
    lines = printed.splitlines()
    row = next(line.split() for line in lines if line.startswith("nats/token"))
    keys = ("loss", "loss_low", "loss_high")
    assert row[1:] == [f"{final[key]:.4f}" for key in keys]
    assert any(line.split()[:1] == ["9-16"] for line in lines)
    assert "at step 20 on the valid split" in lines[0]
    assert "evaluate: done" in noted
    left = json.loads((run.path / "evaluation.json").read_text())
    assert json.loads(lmray("eval", run.path, "--json")[0]) == left
    assert left["loss"] == final["loss"]
    assert len(left["loss_by_position"]) == left["context_length"] == left["stride"] == 16


def test_eval_takes_another_split_shorter_windows_and_a_stride(run: RunDirectory, lmray: Verb):
    options = ("--split", "train", "--context-length", 8, "--stride", 4, "--samples", 3)
    found = json.loads(lmray("eval", run.path, *options, "--sample-tokens", 9, "--json")[0])
    assert (found["split"], found["context_length"], found["stride"]) == ("train", 8, 4)
    assert found["documents"] == 400
    assert found["diversity"]["model"]["texts"] == found["diversity"]["split"]["texts"] == 3
    printed, _, _ = lmray("eval", run.path, *options)
    assert "windows of 8 tokens every 4" in printed.splitlines()[0]
    assert "distinct-3" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--context-length", 32), "context_length=32 is not from 1 to 16"),
        (("--stride", 17), "stride=17 is not from 1 to context_length=16"),
        (("--context-length", 8, "--stride", 9), "stride=9 is not from 1 to context_length=8"),
        (("--tokens", "nosuch"), "no token dataset at nosuch"),
    ],
)
def test_eval_refuses_in_a_line(options: tuple, message: str, run: RunDirectory, lmray: Verb):
    printed, noted, code = lmray("eval", run.path, *options)
    assert printed == ""
    assert code in (2, 3)
    assert noted.startswith("error: ")
    assert message in noted
    assert noted.count("\n") == 1


def test_eval_refuses_a_split_that_is_not_there(run: RunDirectory, lmray: Verb):
    printed, noted, code = lmray("eval", run.path, "--split", "test")
    assert (printed, code) == ("", 2)
    assert "Invalid value for '--split'" in noted


def test_generate_tells_how_varied_several_texts_are(run: RunDirectory, lmray: Verb):
    words = ("generate", run.path, "--prompt", "Ada", "--max-new-tokens", 24, "--samples", 4)
    printed, noted, _ = lmray(*words)
    found = json.loads(lmray(*words, "--json")[0])
    assert printed == "\n\n".join(f"Ada{each['text']}" for each in found["samples"]) + "\n"
    measured = found["diversity"]
    assert noted.startswith(f"4 texts: distinct-1 {measured['distinct_1']:.3f}, distinct-2 ")
    assert noted.endswith(f"repetition {measured['repetition']:.3f}\n")


def test_a_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]):
    text = "\tif x[b]:\r\n\t\tpass  # :smile: [bold]"
    result({}, text, as_json=False)
    assert capsys.readouterr().out == text + "\n"


def test_generate_draws_as_a_runs_samples_are_drawn():
    options = inspect.signature(generate_text).parameters
    assert {key: options[key].default for key in asdict(SAMPLING)} == asdict(SAMPLING)
