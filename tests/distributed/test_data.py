from pathlib import Path

import numpy as np
import pytest

from lmray.corpus import Corpus, byte_ranges
from lmray.corpus.sampling import DocumentSample
from lmray.dataset import build, open_splits
from lmray.distributed.data import count_ranges, run_tasks
from lmray.progress import silent
from lmray.tokenizer import END_OF_TEXT, GPT2_PATTERN, load_tokenizer
from lmray.tokenizer.corpus_counts import CountRule, count_here
from tests.small import write_corpus, write_tokenizer

pytestmark = pytest.mark.ray


def files(directory: Path) -> dict[str, bytes]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("shape", [{}, {"most_tables": 2, "fan_in": 3}], ids=["flat", "tree"])
def test_counts_by_ray_are_those_of_this_process(corpus: Corpus, shape: dict[str, int]):
    seen: list[tuple[int, int]] = []
    ranges = byte_ranges(corpus.train[0], target_bytes=7_000)
    assert len(ranges) > 8
    rule = CountRule(GPT2_PATTERN, (END_OF_TEXT,), DocumentSample(0.5, seed=1), memory=1 << 30)
    expected, here = count_here(ranges, rule, silent)
    counts, effort = count_ranges(2, **shape)(
        ranges, rule, lambda phase, done, total, unit: seen.append((done, total))
    )
    assert counts.as_counter() == expected.as_counter()
    size = corpus.train[0].stat().st_size
    assert seen[0] == (0, size)
    assert seen[-1] == (size, size)
    assert effort.read_bytes == here.read_bytes == size
    assert effort.counted_bytes == here.counted_bytes
    assert effort.worker_peak_bytes > 1 << 20


@pytest.mark.usefixtures("local_ray")
def test_shards_of_one_worker_two_workers_and_this_process_are_the_same_bytes(
    corpus: Corpus, tmp_path: Path
):
    tokenizer = write_tokenizer(corpus, tmp_path / "tokenizer.json")
    build(corpus, tokenizer, tmp_path / "here", shard_bytes=5_000)
    expected = files(tmp_path / "here")
    assert sum(name.startswith("train/shard-") for name in expected) > 4
    for workers in (1, 2):
        there = tmp_path / f"ray-{workers}"
        build(corpus, tokenizer, there, shard_bytes=5_000, run_tasks=run_tasks(workers))
        assert files(there) == expected


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("workers", [1, 2])
def test_real_text_by_ray_is_the_plain_encoding(data_dir: Path, tmp_path: Path, workers: int):
    real = Corpus(
        "tinystories", (data_dir / "tinystories-train.txt",), (data_dir / "tinystories-valid.txt",)
    )
    tokenizer = write_tokenizer(real, tmp_path / "tokenizer.json")
    build(real, tokenizer, tmp_path / "tokens", run_tasks=run_tasks(workers))
    splits = open_splits(tmp_path / "tokens")
    plain = load_tokenizer(tokenizer).encode_bytes(real.train[0].read_bytes())
    np.testing.assert_array_equal(splits.train.read(0, len(splits.train)), plain)
    assert splits.train.manifest.documents == 12_578
