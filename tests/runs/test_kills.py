"""Many times kill -9, at random steps and within checkpoints: the same run to the last bit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from lmray.config import override
from lmray.corpus import Corpus
from lmray.dataset import build, open_splits
from lmray.model import attention
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from lmray.training import checkpoint
from lmray.training.sharing import SharedBackward
from tests.runs.dying import FSYNCS, KILLS, long_run
from tests.small import END, write_tokenizer

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.fixture
def tokens(small_dataset: Path, tmp_path: Path) -> Path:
    """Real text where there is some, else the generated one."""
    if "LMRAY_TEST_DATA" not in os.environ:
        return small_dataset
    text = (Path(os.environ["LMRAY_TEST_DATA"]) / "tinystories-valid.txt").read_text()[:200_000]
    documents = text.split(END)
    for name, part in (("train", documents[20:-1]), ("valid", documents[:20])):
        (tmp_path / f"{name}.txt").write_text("".join(document + END for document in part))
    corpus = Corpus("stories", (tmp_path / "train.txt",), (tmp_path / "valid.txt",))
    tokenizer = write_tokenizer(corpus, tmp_path / "tokenizer" / "tokenizer.json")
    build(corpus, tokenizer, tmp_path / "tokens")
    return tmp_path / "tokens"


def measured(directory: RunDirectory) -> list[tuple]:
    lines = (directory.path / "metrics.jsonl").read_text().splitlines()
    keys = ("kind", "scope", "step", "lr", "loss", "gradient_norm", "update_ratio", "bits_per_byte")
    return [tuple(map(json.loads(line).get, keys)) for line in lines]


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Which of a CPU's own paths have been taken in this process."""
    taken: set[str] = set()
    attend, share = attention.causal_attention, SharedBackward.__call__

    def attending(*heads: Tensor) -> Tensor:
        taken.add("attention")
        return attend(*heads)

    def sharing(*given: Any) -> Tensor:
        taken.add("shares")
        return share(*given)

    monkeypatch.setattr(attention, "causal_attention", attending)
    monkeypatch.setattr(SharedBackward, "__call__", sharing)
    return taken


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "paths"), [("narrow", set()), ("wide", {"attention", "shares"})])
def test_a_run_killed_many_times_is_the_run_that_was_not(
    shape: str, paths: set[str], tokens: Path, tmp_path: Path, used: set[str]
):
    kills = KILLS[shape]
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "tests.runs.dying",
            shape,
            tokens,
            tmp_path / "killed",
        ],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **dict.fromkeys(ONE_THREAD, "1")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    deaths = [json.loads(line) for line in done.stdout.splitlines()]
    assert [death["signal"] for death in deaths] == [9] * kills, done.stderr
    for death in deaths:
        if death["kind"] == "step":
            assert death["leashed"]
        elif death["kind"] == "write":
            assert not death["leashed"]
            assert bool(death["unfinished"]) == (death["fsync"] % FSYNCS > 0)
    assert sum(bool(death["unfinished"]) for death in deaths) >= kills // 4
    assert len({name for death in deaths for name in death["newest"]}) >= kills // 4

    # How often it is saved is no part of the experiment.
    run = override(long_run(tokens, shape), {"execution.checkpoint_interval_steps": 50})
    whole = execute(run, open_splits(tokens), tmp_path / "whole", report=lambda record: None)
    assert used == paths
    (killed,) = map(RunDirectory, (tmp_path / "killed").iterdir())
    assert (killed.path.name, killed.status) == (whole.path.name, "done")
    lives = [life.get("status", "killed") for life in killed.facts["lives"]]
    assert lives == ["killed"] * kills + ["done"]
    assert measured(killed) == measured(whole)
    for which in ("latest", "best"):
        a, b = (checkpoint.select(each.checkpoints, which)[0] for each in (killed, whole))
        assert a.name == b.name
        for name in ("model.safetensors", "optimizer.safetensors"):
            assert (a / name).read_bytes() == (b / name).read_bytes()
    assert not list(killed.checkpoints.glob(".*"))
