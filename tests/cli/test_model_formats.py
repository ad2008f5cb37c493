"""`lmray export` and `lmray import` as a user has them."""

import json
from pathlib import Path

import pytest

from lmray.cli.main import main
from lmray.dataset import open_splits
from lmray.runs.execute import execute
from tests.small import small_run


@pytest.fixture(scope="module")
def home(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a trained run, and one whose switches cannot be exported."""
    root = tmp_path_factory.mktemp("home")
    run = small_run(small_dataset)
    splits = open_splits(small_dataset)
    execute(run, splits, root / "runs", report=lambda record: None)
    other = run.model_copy(update={"model": run.model.model_copy(update={"ffn": "relu2"})})
    directory = execute(other, splits, root / "other", report=lambda record: None)
    directory.path.rename(root / "runs" / "relu2")
    return root


@pytest.fixture
def lmray(home, monkeypatch, capsys):
    """Runs a command in this process; gives its exit code and what it printed."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["lmray", *map(str, words)])
        monkeypatch.setenv("LMRAY_ROOT", str(home))
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def run_id(home):
    return next(path.name for path in (home / "runs").iterdir() if len(path.name) == 12)


def test_there_and_back(lmray, run_id, small_dataset, tmp_path):
    code, out, _ = lmray("export", run_id[:6], tmp_path / "model", "--json")
    facts = json.loads(out)
    assert (code, facts["architecture"], facts["step"]) == (0, "LlamaForCausalLM", 20)
    code, out, _ = lmray("import", tmp_path / "model", "--name", "back")
    assert code == 0
    assert "runs/back: LlamaForCausalLM of 13,744 parameters, 300 ids, context 16" in out
    prompt = ("--prompt", "Ada", "--max-new-tokens", 8, "--json")
    samples = [
        json.loads(lmray("generate", run, *prompt)[1])["samples"] for run in (run_id, "back")
    ]
    assert samples[0] == samples[1]
    code, _, error = lmray("eval", "back")
    assert (code, "name some with --tokens" in error) == (3, True)
    own = json.loads(lmray("eval", run_id, "--json")[1])
    back = json.loads(lmray("eval", "back", "--tokens", small_dataset, "--json")[1])
    assert (own["loss"], own["tokens"]) == (back["loss"], back["tokens"])
    assert lmray("export", "back", tmp_path / "again")[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("export", "nothing", "out"), 2, "no run begins with 'nothing'"),
        (("export", "relu2", "out"), 3, "model.ffn=relu2 is computed by no architecture"),
        (("export", "RUN", "out", "--checkpoint", "last"), 2, "checkpoint 'last' is neither"),
        (("export", "RUN", "out", "--checkpoint", "7"), 3, "no checkpoint of step 7; there are"),
        (("export", "RUN", "taken"), 3, "taken holds something else; choose another folder"),
        (("import", "taken", "--name", "x"), 3, "taken has no config.json; name a folder with"),
        (("import", "taken", "--name", "../x"), 2, "--name=../x is not the name of a folder"),
    ],
)
def test_what_is_refused(words, code, message, lmray, run_id, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    found, out, error = lmray(*(run_id if word == "RUN" else word for word in words))
    assert (found, out) == (code, "")
    assert message in error
    assert len([line for line in error.splitlines() if line.startswith("error: ")]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
