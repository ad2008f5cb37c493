"""The command line as a user has it: a process, its output and its exit code."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lmray.cli.main import main
from tests.small import text, write_corpus

SMALL = [
    "model.vocab_size=300",
    "model.context_length=16",
    "model.num_layers=1",
    "model.d_model=16",
    "model.num_heads=2",
    "data.batch_size=4",
    "budget.tokens=1280",
    "evaluation.interval_tokens=320",
    "evaluation.prefix_tokens=256",
    "execution.device=cpu",
    "execution.threads=1",
]


def lmray(*arguments: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("LMRAY_ROOT", "RAY_ADDRESS")}
    found = subprocess.run(
        [sys.executable, "-m", "lmray", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert found.returncode == code, found.stdout + found.stderr
    return found


def one_line(stdout: str, stderr: str) -> str:
    """The one line of an error; nothing on stdout, no traceback."""
    assert stdout == ""
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr
    return lines[0].removeprefix("error: ")


def refused(*arguments: object, cwd: Path, code: int) -> str:
    found = lmray(*arguments, cwd=cwd, code=code)
    return one_line(found.stdout, found.stderr)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, in which tokenizer, tokens and one run were made by commands."""
    folder = tmp_path_factory.mktemp("home")
    write_corpus(folder)
    lmray(
        *("tokenizer", "train", "train.txt", "--valid", "valid.txt"),
        *("--vocab-size", 300, "--name", "t"),
        cwd=folder,
    )
    lmray(
        *("data", "build", "train.txt", "--valid", "valid.txt", "--tokenizer", "t", "--name", "d"),
        cwd=folder,
    )
    lmray("train", "data.tokens=d", *SMALL, cwd=folder)
    return folder


@pytest.fixture
def run_id(home: Path) -> str:
    (run,) = (home / "lmray-out" / "runs").iterdir()
    return run.name


def test_tokenizer_train_again_finds_it_and_another_size_is_refused(home: Path):
    words = ("tokenizer", "train", "train.txt", "--valid", "valid.txt", "--name", "t")
    facts = json.loads(lmray(*words, "--vocab-size", 300, "--json", cwd=home).stdout)
    assert facts["merges"] == 300 - 257
    message = refused(*words, "--vocab-size", 301, cwd=home, code=3)
    assert "holds another tokenizer (not the same vocab_size" in message


def test_data_stat_and_verify(home: Path):
    facts = json.loads(lmray("data", "stat", "d", "--json", cwd=home).stdout)
    assert facts["train"]["documents"] == 400
    assert facts["train"]["bytes"] == (home / "train.txt").stat().st_size
    assert "as their manifest says" in lmray("data", "verify", "d", cwd=home).stdout


def test_train_again_says_the_same_without_training(home: Path):
    first = json.loads(lmray("train", "data.tokens=d", *SMALL, "--json", cwd=home).stdout)
    assert first["status"] == "done"
    assert first["tokens"] == 1280
    assert first["validation_scope"] == "all"


def test_eval_is_the_runs_own_final_validation(home: Path, run_id: str):
    trained = json.loads(lmray("train", "data.tokens=d", *SMALL, "--json", cwd=home).stdout)
    found = json.loads(lmray("eval", run_id[:5], "--json", cwd=home).stdout)
    assert found["loss"] == trained["validation_loss"]
    assert found["bits_per_byte"] == trained["validation_bits_per_byte"]
    message = refused("eval", run_id, "--checkpoint", "best", cwd=home, code=3)
    assert "execution.keep_best=true keeps one" in message


def test_generate_is_reproducible_and_greedy_at_temperature_0(home: Path, run_id: str):
    words = ("generate", run_id, "--prompt", "Ada", "--max-new-tokens", 8)
    first, second = json.loads(lmray(*words, "--samples", 2, "--json", cwd=home).stdout)["samples"]
    assert 0 < first["new_tokens"] <= 8
    again = json.loads(lmray(*words, "--seed", 1, "--json", cwd=home).stdout)["samples"]
    assert again == [second]
    greedy = [
        json.loads(lmray(*words, *likeliest, "--seed", 5, "--json", cwd=home).stdout)["samples"]
        for likeliest in (("--temperature", 0), ("--top-k", 1), ("--min-p", 1, "--checkpoint", 20))
    ]
    assert greedy[0] == greedy[1] == greedy[2]
    for how in ("--stream", "--no-stream"):
        assert lmray(*words, how, cwd=home).stdout == "Ada" + first["text"] + "\n"


def test_corpus_list_and_stat(home: Path):
    names = [c["name"] for c in json.loads(lmray("corpus", "list", "--json", cwd=home).stdout)]
    assert names == ["stdlib", "tinystories", "openwebtext"]
    facts = json.loads(lmray("corpus", "stat", "train.txt", "--json", cwd=home).stdout)
    assert facts["documents"] == 400


def test_doctor_without_ray_passes_here(home: Path):
    checks = json.loads(lmray("doctor", "--no-ray", "--json", cwd=home).stdout)
    assert {"python", "torch", "cores", "gpu", "disk"} <= {check["what"] for check in checks}
    assert all(check["ok"] for check in checks)


def test_version(home: Path):
    assert lmray("--version", cwd=home).stdout.startswith("lmray 0.")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("train", "optim.lrr=1"), 2, "unknown key 'optim.lrr'; did you mean optim.lr"),
        (("train", "optim.lr"), 2, "'optim.lr' is not key=value"),
        (("train", "optim.lr=1e3"), 2, "optim.lr"),
        (("train", "model.d_model=100", "model.num_heads=16"), 2, "not divisible by"),
        (("train", "budget.tokens=10"), 2, "has no room for one step"),
        (("train", "--config", "nosuch"), 2, "no preset named 'nosuch'"),
        (("train", "--config", "nosuch.yaml"), 2, "nosuch.yaml"),
        (("train", "data.tokens=nosuch"), 3, "no token dataset at nosuch"),
        (("train", "data.tokens=d"), 3, "set model.vocab_size=300"),
        (("train", "data.tokens=d", *SMALL, "seed=7", "execution.device=cuda"), 3, "device=cpu"),
        (("train", "data.tokens=d", *SMALL, "model.context_length=4096", "budget.tokens=99999",
          "evaluation.prefix_tokens=4096"), 3, "use more validation text"),
        (("eval", "zzz"), 2, "no run begins with 'zzz'"),
        (("generate", "zzz"), 2, "no run begins with 'zzz'"),
        (("generate", "zzz", "--stream", "--json"), 2, "and not --json; drop one of them"),
        (("sweep", "run", "nosuch"), 2, "no space at nosuch"),
        (("sweep", "run", "quickstart", "optim.lr=1e-3"), 2, "is what space quickstart varies"),
        (("sweep", "run", "quickstart", "data.tokens=d"), 3, "set model.vocab_size=300"),
        (("sweep", "report", "nosuch"), 3, "no sweep at nosuch"),
        (("sweep", "resume", "nosuch"), 3, "no sweep at nosuch"),
        (("corpus", "fetch", "nosuch"), 2, "unknown corpus 'nosuch'"),
        (("corpus", "stat", "nosuch.txt"), 2, "nosuch.txt"),
        (("data", "stat", "nosuch"), 3, "no token dataset at nosuch"),
        (("data", "build", "train.txt", "--tokenizer", "nosuch", "--name", "x"), 2, "nosuch"),
        (("tokenizer", "train", "train.txt", "--vocab-size", "256", "--name", "x"), 2, "256"),
        (("tokenizer", "train", "train.txt", "--vocab-size", "9999", "--name", "x"), 3, "merges"),
        (("tokenizer", "train", "nosuch.txt", "--vocab-size", "300", "--name", "x"), 2, "nosuch"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line_and_its_exit_code(
    home: Path,
    words: tuple[str, ...],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    # In this process: importing torch anew for each would take a minute.
    monkeypatch.chdir(home)
    monkeypatch.delenv("LMRAY_ROOT", raising=False)
    monkeypatch.setattr(sys, "argv", ["lmray", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert message in one_line(*capsys.readouterr())


def test_debug_shows_the_traceback(home: Path):
    found = lmray("train", "optim.lrr=1", "--debug", cwd=home, code=1)
    assert "Traceback" in found.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "is empty"), ("one story only, and no separator\n", "--valid")],
)
def test_a_corpus_that_cannot_be_split_is_refused(tmp_path: Path, content: str, message: str):
    (tmp_path / "t.txt").write_text(content)
    words = ("tokenizer", "train", "t.txt", "--vocab-size", 300, "--name", "x")
    assert message in refused(*words, cwd=tmp_path, code=3)


def test_unreadable_and_odd_files_are_refused(tmp_path: Path):
    (tmp_path / "t.doc").write_text(text(3, seed=0))
    (tmp_path / "folder.txt").mkdir()
    for name in ("t.doc", "folder.txt"):
        words = ("tokenizer", "train", name, "--vocab-size", 300, "--name", "x")
        assert name in refused(*words, cwd=tmp_path, code=2)


def damaged(home: Path, tmp_path: Path) -> Path:
    shutil.copytree(home / "lmray-out", tmp_path / "lmray-out")
    return tmp_path / "lmray-out" / "tokens" / "d" / "train" / "shard-00000.npy"


def test_a_truncated_shard_is_refused_before_training(home: Path, tmp_path: Path):
    shard = damaged(home, tmp_path)
    shard.write_bytes(shard.read_bytes()[:-2])
    message = refused("train", "data.tokens=d", *SMALL, "seed=1", cwd=tmp_path, code=1)
    assert "shard-00000.npy" in message
    assert "lmray data build" in message


def test_an_altered_shard_is_found_by_verify(home: Path, tmp_path: Path):
    shard = damaged(home, tmp_path)
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert "shard-00000.npy" in refused("data", "verify", "d", cwd=tmp_path, code=1)


def test_shards_of_another_tokenizer_are_refused(home: Path, tmp_path: Path):
    damaged(home, tmp_path)
    lmray(
        *("tokenizer", "train", home / "train.txt", "--valid", home / "valid.txt"),
        *("--vocab-size", 301, "--name", "other"),
        cwd=tmp_path,
    )
    out = tmp_path / "lmray-out"
    shutil.copy(out / "tokenizer/other/tokenizer.json", out / "tokens/d/tokenizer.json")
    message = refused("train", "data.tokens=d", *SMALL, cwd=tmp_path, code=3)
    assert "was encoded by tokenizer" in message


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_said_plainly_and_loses_nothing(home: Path, tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let root mount")
    try:
        shutil.copytree(home / "lmray-out" / "tokens", disk / "tokens")
        words = ("train", "data.tokens=d", *SMALL, "budget.tokens=64000", "--root", disk)
        fast = ("execution.checkpoint_interval_steps=20", "execution.keep_checkpoints=100")
        message = refused(*words, *fast, cwd=tmp_path, code=1)
        assert "space" in message
        assert list(disk.glob("runs/*/checkpoints/step-*"))
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        found = json.loads(lmray(*words, *fast, "--json", cwd=tmp_path).stdout)
        assert found["status"] == "done"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.ray
@pytest.mark.slow
def test_quickstart_on_ones_own_text_ends_with_a_table_a_text_and_a_report(tmp_path: Path):
    (tmp_path / "mine.txt").write_text(text(600, seed=5))
    words = ("quickstart", "--corpus", "mine.txt", "--vocab-size", 300, "budget.tokens=98304")
    found = lmray(*words, cwd=tmp_path).stdout
    for expected in ("bits_per_byte", "done *", "the best model writes:", "report: lmray-out"):
        assert expected in found
    report = tmp_path / found.strip().splitlines()[-1].removeprefix("report: ")
    assert report.exists()
    for picture in ("curves.png", "loss-against-lr.png"):
        assert (report.parent / picture).stat().st_size > 10_000
    again = lmray(*words, cwd=tmp_path)
    assert again.stdout == found
    assert "trials" not in again.stderr.replace("sweep of 5 trials", "")
