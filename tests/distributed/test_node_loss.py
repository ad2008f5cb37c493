"""A worker host of three loses its power: sweeps, runs on two hosts, corpora go on without it."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lmray.config import Budget, Evaluation, Execution, Optim, Run, run_id
from lmray.corpus import Corpus
from lmray.dataset import build, open_splits
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory, list_runs
from lmray.sweeps.ledger import read_events
from lmray.sweeps.space_file import load_space
from lmray.tokenizer.build import Recipe
from lmray.tokenizer.build import build as build_tokenizer
from lmray.training.checkpoint import newest_step
from tests.distributed.local_cluster import LocalCluster, await_status, missing
from tests.small import small_run, text, write_dataset

WITHOUT = missing()
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(WITHOUT), reason=WITHOUT),
]

RATES = [1e-3, 3e-3, 1e-2]
SPACE = """'''Hypothesis: none; a host dies.'''
from lmray.config import Run
from lmray.sweeps.space import TO_THE_END
BASE = Run.model_validate({base!r})
SPACE = {{"optim.lr": {rates!r}}}
SEEDS = [0]
ASHA = TO_THE_END
"""


def long_run(tokens: Path, workers: int = 1, steps: int = 3000, lr: float = 1e-2) -> Run:
    return small_run(
        tokens,
        optim=Optim(lr=lr),
        budget=Budget(tokens=64 * steps),
        evaluation=Evaluation(interval_tokens=64 * 200, prefix_tokens=256),
        execution=Execution(
            device="cpu",
            workers=workers,
            threads=1,
            log_interval_steps=20,
            checkpoint_interval_steps=100,
        ),
    )


@pytest.fixture(scope="module")
def tokens(cluster: LocalCluster) -> Path:
    return write_dataset(cluster.shared / "small")


@contextmanager
def job(cluster: LocalCluster, root: Path, *command: object) -> Iterator[subprocess.Popen[bytes]]:
    """A command of lmray on the cluster, which must not end before the block, and well after it."""
    place = ["submit", "--cluster", cluster.yaml, "--root", root, "--", "lmray"]
    root.mkdir(exist_ok=True)
    log = root / "job.log"
    process = cluster.start(*place, *command, log=log)
    try:
        yield process
        assert process.wait(timeout=400) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def victim(
    cluster: LocalCluster, process: subprocess.Popen[bytes], works: Callable[[int], bool]
) -> int:
    """Waits until a worker host works on the job, and pulls its plug."""
    while process.poll() is None:
        for host in (2, 3):
            if works(host):
                cluster.script("kill", host)
                return host
        time.sleep(0.1)
    raise AssertionError("the job ended before a host could be killed")


def everybody_in(cluster: LocalCluster) -> None:
    """Boots the hosts that are down and waits until Ray has all of them."""
    for number in (2, 3):
        if "down" in cluster.script("status").splitlines()[number - 1]:
            cluster.script("start", number)
    await_status(cluster, *(f"10.78.0.1{number}  worker  alive" for number in (2, 3)))


def runs_a_process(cluster: LocalCluster, host: int, name: str) -> bool:
    return bool(cluster.script("ssh", host, f"pgrep -f '^ray::{name}' || true").strip())


def losses(run: RunDirectory, kind: str) -> tuple[list[int], torch.Tensor]:
    records = run.records(kind)
    return [r["step"] for r in records], torch.tensor([r["loss"] for r in records])


def assert_equal_curves(run: RunDirectory, expected: RunDirectory, rtol: float) -> None:
    for kind in ("train", "validation"):
        (steps, there), (expected_steps, here) = losses(run, kind), losses(expected, kind)
        assert steps == expected_steps
        torch.testing.assert_close(there, here, rtol=rtol, atol=0)


def test_a_trial_whose_host_dies_goes_on_from_its_newest_checkpoint_elsewhere(
    cluster: LocalCluster, tokens: Path, tmp_path: Path
):
    everybody_in(cluster)
    space = cluster.shared / "rates.py"
    space.write_text(SPACE.format(base=long_run(tokens).model_dump(), rates=RATES))
    root = cluster.shared / "sweep"

    def dying(host: int) -> list[RunDirectory]:
        return [
            run
            for run in list_runs(root / "runs")
            if run.status == "running"
            and run.facts["lives"][-1]["hardware"]["host"] == f"lmrayt-h{host}"
            and newest_step(run.checkpoints)
        ]

    with job(cluster, root, "sweep", "run", space, "--tokens-per-s", 1000) as process:
        host = victim(cluster, process, lambda host: bool(dying(host)))
        (run,) = dying(host)
        saved = newest_step(run.checkpoints)
    first, second = run.facts["lives"]
    assert "ended" not in first
    assert second["began_at_step"] == saved
    assert second["hardware"]["host"] != first["hardware"]["host"]
    assert second["git_revision"] not in ("none", "unknown")
    events = read_events(root / "sweeps" / "rates" / "ledger.jsonl")
    for trial in load_space(str(space)).trials(open_splits(tokens).digest):
        story = [event.kind for event in events if event.trial == trial.id]
        lost = ["failed", "started"] if trial.id == run.path.name else []
        assert story == ["started", *lost, "done"]
    alone = execute(run.config, open_splits(tokens), tmp_path, report=lambda record: None)
    assert_equal_curves(run, alone, rtol=0)


def test_a_run_on_two_hosts_goes_on_when_one_is_told_that_it_will_end_and_when_one_dies(
    cluster: LocalCluster, tokens: Path, tmp_path: Path
):
    everybody_in(cluster)
    # A low rate, so that the sums' order, which is another with two workers, matters less.
    run = long_run(tokens, workers=2, steps=2000, lr=1e-3)
    root = cluster.shared / "train"
    config = cluster.shared / "run.json"
    config.write_text(run.model_dump_json())
    there = RunDirectory(root / "runs" / run_id(run, open_splits(tokens).digest))
    worker = "[^ ]*RayTrainWorker"

    def await_checkpoint(life: int) -> None:
        while there.status == "absent" or len(there.facts["lives"]) <= life or not trained(life):
            assert process.poll() is None, "it ended before a host could be killed"
            time.sleep(0.1)

    def trained(life: int) -> bool:
        began = there.facts["lives"][life].get("began_at_step")
        return began is not None and newest_step(there.checkpoints) > began

    with job(cluster, root, "train", "--config", config) as process:
        await_checkpoint(0)
        host = next(host for host in (2, 3) if runs_a_process(cluster, host, worker))
        cluster.script("ssh", host, f"pkill -TERM -f '^ray::{worker}'")
        await_checkpoint(1)
        victim(cluster, process, lambda host: runs_a_process(cluster, host, worker))
    told, killed, last = there.facts["lives"]
    assert told["status"] == "preempted"
    assert "status" not in killed
    assert killed["began_at_step"] < last["began_at_step"]
    assert there.status == "done"
    single = run.model_copy(update={"execution": long_run(tokens).execution})
    alone = execute(single, open_splits(tokens), tmp_path, report=lambda record: None)
    assert_equal_curves(there, alone, rtol=1e-4)


def test_a_vocabulary_and_shards_are_the_same_when_a_host_dies_while_it_counts_or_encodes(
    cluster: LocalCluster, tmp_path: Path
):
    everybody_in(cluster)
    paths = [cluster.shared / name for name in ("train.txt", "valid.txt")]
    paths[0].write_text("".join(text(6_000, seed) for seed in range(4)) * 8)
    paths[1].write_text(text(100, seed=9))
    corpus = Corpus("c", (paths[0],), (paths[1],))
    build_tokenizer(corpus, tmp_path / "t", Recipe(300), kept_counts=tmp_path / "counts")
    build(corpus, tmp_path / "t" / "tokenizer.json", tmp_path / "tokens")
    root, source = cluster.shared / "data", [paths[0], "--valid", paths[1], "--workers", 3]
    for command in (
        ["tokenizer", "train", *source, "--vocab-size", 300, "--name", "t"],
        ["data", "build", *source, "--tokenizer", "t", "--name", "c"],
    ):
        everybody_in(cluster)
        with job(cluster, root, *command) as process:
            victim(cluster, process, lambda host: runs_a_process(cluster, host, "MapBatches"))
    assert contents(root / "tokenizer" / "t", "tokenizer.json") == contents(
        tmp_path / "t", "tokenizer.json"
    )
    made = contents(root / "tokens" / "c", "*/*")
    assert len(made) > 8
    assert made == contents(tmp_path / "tokens", "*/*")


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob(pattern)}
