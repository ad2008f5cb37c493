"""Sweeps and runs on a cluster whose workers are still to come, by Ray's own autoscaler."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from lmray.dataset import open_splits
from lmray.distributed.cluster import grows
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory, list_runs
from lmray.sweeps.ledger import read_events
from tests.distributed.growing import growing
from tests.small import small_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPACE = """'''Hypothesis: none; the nodes are to come.'''
from lmray.config import Run
from lmray.sweeps.space import TO_THE_END
BASE = Run.model_validate({base!r})
SPACE = {{"optim.lr": [1e-3, 1e-2]}}
SEEDS = [0]
ASHA = TO_THE_END
"""
THERE = """
import json
import sys
import lmray.distributed
from lmray.distributed.cluster import nodes, ray_session
with ray_session(sys.argv[1]):
    print(json.dumps([sum(node.cpus for node in nodes()), sum(node.gpus for node in nodes())]))
"""
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
    "PYTHONPATH": str(Path(__file__).parents[2]),
    "RAY_AUTH_MODE": "disabled",
    "COLUMNS": "400",
}

Told = subprocess.CompletedProcess[str]


def told(*words: object) -> Told:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)


def there(address: str) -> tuple[float, float]:
    """CPUs and GPUs of the cluster's nodes."""
    cpus, gpus = json.loads(told("-c", THERE, address).stdout)
    return cpus, gpus


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with growing([{"CPU": 1}, {"CPU": 1, "GPU": 1}], ENVIRONMENT) as address:
        yield address


@pytest.fixture
def asks(address: str, tmp_path: Path) -> Callable[..., Told]:
    def call(*words: object) -> Told:
        places = ("--address", address, "--root", tmp_path)
        return told("-c", "from lmray.cli.main import main; main()", *words, *places)

    return call


@pytest.mark.usefixtures("local_ray")
def test_a_ray_of_this_machine_alone_does_not_grow():
    assert not grows()


def test_a_sweep_makes_a_cluster_without_workers_grow_and_runs_to_its_end(
    address: str, asks: Callable[..., Told], small_dataset: Path, tmp_path: Path
):
    base = small_run(small_dataset)
    space = tmp_path / "rates.py"
    space.write_text(SPACE.format(base=base.model_dump()))
    run = ("sweep", "run", space, "--tokens-per-s", 1e9)

    refused = asks(*run)
    assert refused.returncode == 3, refused.stderr
    assert "Ray has room for 0 at 1 CPU each" in refused.stderr
    assert "say --at-once N" in refused.stderr
    done = asks(*run, "--at-once", 2)
    assert done.returncode == 0, done.stderr
    assert there(address)[0] >= 2
    kinds = [e.kind for e in read_events(tmp_path / "sweeps" / "rates" / "ledger.jsonl")]
    assert kinds == ["started", "started", "done", "done"]
    splits = open_splits(small_dataset)
    for run in list_runs(tmp_path / "runs"):
        alone = execute(run.config, splits, tmp_path / "alone", report=lambda record: None)
        assert losses(run) == losses(alone)


def test_trials_that_ask_for_a_gpu_make_a_node_with_one_come(
    address: str, asks: Callable[..., Told], small_dataset: Path, tmp_path: Path
):
    space = tmp_path / "rates.py"
    space.write_text(SPACE.format(base=small_run(small_dataset).model_dump()))
    run = ("sweep", "run", space, "execution.device=cuda", "--at-once", 1)
    if not torch.cuda.is_available():
        refused = asks(*run)
        assert refused.returncode == 3, refused.stderr
        assert "say --tokens-per-s" in refused.stderr
    ended = asks(*run, "--tokens-per-s", 1e9)
    if torch.cuda.is_available():
        assert ended.returncode == 0, ended.stderr
    else:  # Ray's GPU is there in name only
        assert "torch sees no CUDA device" in ended.stderr
    assert there(address)[1] >= 1


def losses(run: RunDirectory) -> list[tuple[int, float]]:
    return [(record["step"], record["loss"]) for record in run.records("train")]
