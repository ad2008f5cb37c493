"""`--root s3://...`: what one node leaves there, another one finds."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmray.cli.main import main
from tests.fake_aws import WITHOUT, fake_aws
from tests.folder_store import use_folder
from tests.small import text

PROJECT = Path(__file__).parents[2]
ROOT = "s3://lmray-bucket/out"
RUN = [
    "model.vocab_size=300",
    *("model.context_length=16", "model.num_layers=1", "model.d_model=16", "model.num_heads=2"),
    *("data.batch_size=4", "optim.lr=1e-2", "execution.device=cpu", "execution.threads=1"),
    *("evaluation.interval_tokens=320", "evaluation.prefix_tokens=256"),
    *("execution.checkpoint_interval_steps=4", "data.tokens=mine"),
]
Lmray = Callable[..., dict]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(text(400, seed=1))
    return path


@pytest.fixture
def lmray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Lmray:
    """Runs a verb in this process on a node of that name; the URL leads to a folder."""
    use_folder(tmp_path / "store", monkeypatch)
    monkeypatch.delenv("LMRAY_ROOT", raising=False)

    def call(node: str, *words: str, code: int = 0) -> dict:
        monkeypatch.setenv("LMRAY_CACHE", str(tmp_path / node))
        monkeypatch.setattr(sys, "argv", ["lmray", *words, "--root", ROOT, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, err
        return json.loads(out) if code == 0 else {"error": err}

    return call


def test_tokenizer_tokens_runs_and_evaluations_are_found_on_another_node(
    lmray: Lmray, corpus: Path, tmp_path: Path
):
    lmray("a", "tokenizer", "train", str(corpus), "--name", "mine", "--vocab-size", "300")
    built = lmray("b", "data", "build", str(corpus), "--tokenizer", "mine", "--name", "mine")
    assert lmray("c", "data", "stat", "mine")["digest"] == built["digest"]
    trained = lmray("c", "train", "budget.tokens=640", *RUN)
    assert trained["status"] == "done"
    name = Path(trained["run"]).name
    # A node without any of it: the run is done, and its model can be used.
    again = lmray("d", "train", "budget.tokens=640", *RUN)
    assert Path(again["run"]) == tmp_path / "d" / "s3:" / "lmray-bucket" / "out" / "runs" / name
    assert again["validation_loss"] == trained["validation_loss"]
    evaluated = lmray("e", "eval", name[:6])
    assert evaluated["loss"] == pytest.approx(trained["validation_loss"])
    store = tmp_path / "store" / "lmray-bucket" / "out"
    assert json.loads((store / "runs" / name / "evaluation.json").read_text()) == evaluated
    assert not [path for path in store.rglob("*") if path.name.startswith(".")]


def test_tokens_that_are_not_those_of_their_manifest_are_not_trained_on(
    lmray: Lmray, corpus: Path, tmp_path: Path
):
    lmray("a", "tokenizer", "train", str(corpus), "--name", "mine", "--vocab-size", "300")
    lmray("a", "data", "build", str(corpus), "--tokenizer", "mine", "--name", "mine")
    [shard] = (tmp_path / "store").rglob("train/shard-00000.npy")
    shard.write_bytes(shard.read_bytes()[:-2] + b"\1\1")
    error = lmray("b", "train", "budget.tokens=640", *RUN, code=1)["error"]
    assert "is not the file its manifest records (sha256" in " ".join(error.split())


SPACE = """'''Hypothesis: none.'''
from pathlib import Path
from lmray.sweeps.space import TO_THE_END
from tests.small import small_run
BASE = small_run(Path("mine"))
SPACE = {"optim.lr": [1e-3, 1e-2]}
SEEDS = [0]
ASHA = TO_THE_END
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(bool(WITHOUT), reason=f"{WITHOUT} not installed")
def test_a_sweep_in_s3_is_run_on_one_node_and_read_and_finished_on_others(
    corpus: Path, tmp_path: Path
):
    (tmp_path / "space.py").write_text(SPACE)
    with fake_aws(tmp_path) as aws:
        import boto3

        s3 = boto3.client(
            "s3",
            endpoint_url=aws["AWS_ENDPOINT_URL"],
            aws_access_key_id=aws["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=aws["AWS_SECRET_ACCESS_KEY"],
            region_name="us-west-2",
        )
        region = {"LocationConstraint": "us-west-2"}
        s3.create_bucket(Bucket="lmray-bucket", CreateBucketConfiguration=region)

        def on(node: str, *words: str) -> dict:
            done = subprocess.run(
                [sys.executable, "-m", "lmray", *words, "--root", ROOT, "--json"],
                cwd=PROJECT,
                env=os.environ | aws | {"LMRAY_CACHE": str(tmp_path / node)},
                capture_output=True,
                text=True,
                check=False,
            )
            said = done.stdout + done.stderr
            assert done.returncode == 0, said
            assert aws["AWS_SECRET_ACCESS_KEY"] not in said
            return json.loads(done.stdout)

        on("a", "tokenizer", "train", str(corpus), "--name", "mine", "--vocab-size", "300")
        on("a", "data", "build", str(corpus), "--tokenizer", "mine", "--name", "mine")
        space = str(tmp_path / "space.py")
        swept = on("b", "sweep", "run", space, "--name", "rates", "--tokens-per-s", "1000")
        assert [trial["status"] for trial in swept["trials"]] == ["done", "done"]
        # A trial's last event is lost with its node: another one takes the sweep up and ends it.
        key = "out/sweeps/rates/ledger.jsonl"
        lines = s3.get_object(Bucket="lmray-bucket", Key=key)["Body"].read().splitlines(True)
        s3.put_object(Bucket="lmray-bucket", Key=key, Body=b"".join(lines[:-1]))
        status = [each["status"] for each in on("c", "sweep", "status", "rates")["trials"]]
        assert sorted(status) == ["done", "running"]
        resumed = on("c", "sweep", "resume", "rates")
        for was, now in zip(swept["trials"], resumed["trials"], strict=True):
            assert {k: now[k] for k in ("run", "status", "loss")} == {
                k: was[k] for k in ("run", "status", "loss")
            }
        listed = s3.list_objects_v2(Bucket="lmray-bucket", Prefix="out/sweeps/rates/")["Contents"]
        there = {entry["Key"].removeprefix("out/sweeps/rates/") for entry in listed}
        assert {"sweep.json", "price.json", "ledger.jsonl", "report/report.md"} <= there
        for node in "abc":
            for path in (tmp_path / node).rglob("*"):
                if path.is_file():
                    assert aws["AWS_SECRET_ACCESS_KEY"].encode() not in path.read_bytes()
