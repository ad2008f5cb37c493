"""A corpus and a tokenizer to build from; a token dataset to read, and one to spoil."""

import shutil
from pathlib import Path

import pytest

from lmray.corpus import Corpus
from lmray.dataset import build
from tests.dataset.samples import write_corpus, write_tokenizer


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token dataset of several shards a split, for reading only."""
    folder = tmp_path_factory.mktemp("built")
    tokenizer = write_tokenizer(folder / "tokenizer.json")
    build(write_corpus(folder), tokenizer, folder / "tokens", shard_bytes=2000)
    return folder / "tokens"


@pytest.fixture
def spoilt(built: Path, tmp_path: Path) -> Path:
    """A copy of that dataset for one test to damage."""
    return shutil.copytree(built, tmp_path / "spoilt")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write_corpus(tmp_path / "corpus")


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "tokenizer.json")
