"""What a Ray exports of a sweep while it runs, read at its port or through a real Prometheus."""

import json
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lmray.config import Budget
from lmray.dataset import open_splits
from lmray.distributed.tune import run_sweep
from lmray.sweeps.decisions.asha import Asha
from lmray.sweeps.space import Space, Trial
from lmray.sweeps.sweep_directory import StopFile, claim
from tests.small import small_run

ROOT = Path(__file__).parents[2]
Sample = tuple[str, dict[str, str], float]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def endpoint() -> str:
    (node,) = [each for each in ray.nodes() if each["Alive"]]
    return f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"


def exported(name: str, label: str = "sweep") -> list[Sample]:
    """The samples of a sweep at the node's metrics port, as Prometheus would read them."""
    with urllib.request.urlopen(f"http://{endpoint()}/metrics", timeout=60) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
    return [
        (each.name, each.labels, each.value) for each in samples if each.labels.get(label) == name
    ]


@contextmanager
def endless(dataset: Path, root: Path, name: str, *, named: bool) -> Iterator[Trial]:
    """A sweep of one trial that trains as long as the block."""
    run = small_run(dataset, budget=Budget(tokens=64_000_000))
    question = Space(name, "", run, {"optim.lr": [1e-3]}, (0,), Asha(6_400_000, 2))
    splits = open_splits(dataset)
    directory = root / "sweeps" / name
    claim(directory, question, splits.digest)
    arguments = (question, splits, directory, root / "runs")
    sweep = threading.Thread(target=run_sweep, args=arguments, kwargs={"named": named})
    sweep.start()
    try:
        (trial,) = question.trials(splits.digest)
        yield trial
    finally:
        StopFile.of(directory).ask()
        sweep.join()


@contextmanager
def prometheus(folder: Path) -> Iterator[Callable[[str], list[Any]]]:
    """Debian's Prometheus on scripts/prometheus.yml, but for where Ray's ports are listed."""
    config = yaml.safe_load((ROOT / "scripts" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    job["file_sd_configs"][0]["files"] = [str(folder / "ports.json")]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "ports.json").write_text(json.dumps([{"targets": [endpoint()]}]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert process.poll() is None, "Prometheus has ended"
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=10):
                return True
        except OSError:
            return False

    def query(expression: str) -> list[Any]:
        url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return json.load(answer)["data"]["result"]

    try:
        wait_for(answers, "Prometheus does not answer")
        yield query
    finally:
        process.terminate()
        process.wait()
