"""Counts, merges and shards are the same bytes whoever makes them, and however often they die."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from lmray.corpus import SEPARATOR, Corpus
from lmray.dataset import build, make_shard
from lmray.distributed.cluster import ray_session
from lmray.distributed.data import count_ranges, run_tasks
from lmray.tokenizer.build import Recipe
from lmray.tokenizer.build import build as build_tokenizer
from tests.small import text

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SHARD_BYTES = 40_000
RECIPE = Recipe(310)

ENCODE = """
import sys
from pathlib import Path
from lmray.corpus import Corpus
from lmray.dataset import build
train, valid, tokenizer, target, shard_bytes = sys.argv[1:]
corpus = Corpus("c", (Path(train),), (Path(valid),))
build(corpus, Path(tokenizer), Path(target), shard_bytes=int(shard_bytes))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Four megabytes in two files: real text where there is some, else sentences of a grammar."""
    folder = tmp_path_factory.mktemp("corpus")
    paths = [folder / name for name in ("one.txt", "two.txt", "valid.txt")]
    if real := os.environ.get("LMRAY_TEST_DATA"):
        documents = Path(real, "webtext-train.txt").read_bytes().split(SEPARATOR)[:900]
        pieces = [SEPARATOR.join(documents[part::3]) + SEPARATOR for part in range(3)]
    else:
        pieces = [text(12_000, seed).encode() for seed in range(3)]
    for path, piece in zip(paths, pieces, strict=True):
        path.write_bytes(piece)
    return Corpus("c", tuple(paths[:2]), (paths[2],))


@pytest.fixture(scope="module")
def expected(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes."""
    folder = tmp_path_factory.mktemp("expected")
    build_tokenizer(corpus, folder / "t", RECIPE, kept_counts=folder / "counts")
    build(corpus, folder / "t" / "tokenizer.json", folder / "tokens", shard_bytes=SHARD_BYTES)
    assert len(list((folder / "tokens" / "train").glob("shard-*.npy"))) > 20
    return folder


def contents(directory: Path) -> dict[str, bytes]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path.suffix)
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def tokenizer_of(folder: Path) -> Path:
    return folder / "t" / "tokenizer.json"


def test_two_processes(corpus: Corpus, expected: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        build(
            corpus,
            tokenizer_of(expected),
            tmp_path,
            shard_bytes=SHARD_BYTES,
            run_tasks=lambda tasks: pool.imap_unordered(make_shard, tasks),
        )
    assert contents(tmp_path) == contents(expected / "tokens")


def by_ray(corpus: Corpus, tmp_path: Path) -> None:
    build_tokenizer(
        corpus,
        tmp_path / "t",
        RECIPE,
        kept_counts=tmp_path / "counts",
        count_ranges=count_ranges(2, most_tables=2, fan_in=2),
    )
    build(
        corpus,
        tokenizer_of(tmp_path),
        tmp_path / "tokens",
        shard_bytes=SHARD_BYTES,
        run_tasks=run_tasks(2),
    )


def assert_equal(made: Path, expected: Path) -> None:
    assert tokenizer_of(made).read_bytes() == tokenizer_of(expected).read_bytes()
    assert contents(made / "tokens") == contents(expected / "tokens")


@pytest.mark.usefixtures("local_ray")
def test_ray_with_two_tasks_at_a_time(corpus: Corpus, expected: Path, tmp_path: Path) -> None:
    by_ray(corpus, tmp_path)
    assert_equal(tmp_path, expected)


def test_killed_five_times(corpus: Corpus, expected: Path, tmp_path: Path) -> None:
    target = tmp_path / "tokens"
    command = [sys.executable, "-c", ENCODE, str(corpus.train[0]), str(corpus.valid[0])]
    command += [str(tokenizer_of(expected)), str(target), str(SHARD_BYTES // 8)]
    one_file = Corpus("c", corpus.train[:1], corpus.valid)
    build(one_file, tokenizer_of(expected), tmp_path / "whole", shard_bytes=SHARD_BYTES // 8)
    for kills in range(5):
        before = len(list(target.glob("*/rows-*/*.json")))
        process = subprocess.Popen(command)
        while len(list(target.glob("*/rows-*/*.json"))) < before + 3 + kills:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (target / "valid" / "manifest.json").exists()
    subprocess.run(command, check=True)
    assert contents(target) == contents(tmp_path / "whole")


def on_two_nodes(corpus: Corpus, tmp_path: Path) -> None:
    """The target of a process of its own: one process can join only one cluster."""
    small = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    try:
        cluster.add_node(**small)
        cluster.wait_for_nodes()
        with ray_session(cluster.address):
            assert len(ray.nodes()) == 2
            by_ray(corpus, tmp_path)
    finally:
        cluster.shutdown()


def test_ray_with_two_nodes(corpus: Corpus, expected: Path, tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=on_two_nodes, args=(corpus, tmp_path)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    assert_equal(tmp_path, expected)
