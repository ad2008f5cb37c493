from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lmray.corpus import Corpus, byte_ranges
from lmray.dataset import build, open_splits
from lmray.distributed.data import count_ranges, run_tasks
from lmray.tokenizer import END_OF_TEXT, GPT2_PATTERN, count_pretokens, load_tokenizer
from tests.small import write_corpus, write_tokenizer

pytestmark = pytest.mark.ray


def files(directory: Path) -> dict[str, bytes]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.usefixtures("local_ray")
def test_counts_of_two_tasks_at_a_time_are_those_of_the_whole_text(corpus: Corpus):
    seen: list[tuple[int, int]] = []
    ranges = byte_ranges(corpus.train[0], target_bytes=7_000)
    assert len(ranges) > 4
    counts = count_ranges(
        ranges,
        pattern=GPT2_PATTERN,
        special_tokens=[END_OF_TEXT],
        num_cpus=2,
        progress=lambda phase, done, total, unit: seen.append((done, total)),
    )
    whole = corpus.train[0].read_bytes()
    assert counts == count_pretokens(whole, pattern=GPT2_PATTERN, special_tokens=[END_OF_TEXT])
    assert isinstance(counts, Counter)
    assert seen[-1] == (len(whole), len(whole))


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
