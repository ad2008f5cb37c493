import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from lmray.corpus import NAMED, fetch
from lmray.errors import CorruptionError, LmrayError
from tests.corpus.conftest import Hub

TRAIN, VALID = b"one<|endoftext|>two", b"three<|endoftext|>"


@pytest.fixture
def mirror(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A mirror of the hub whose TinyStories and OpenWebText are a few bytes."""
    monkeypatch.setenv("HF_ENDPOINT", hub.address + "/")
    monkeypatch.delenv("LMRAY_HF_ENDPOINT", raising=False)
    stories = "/datasets/roneneldan/TinyStories/resolve/main/TinyStoriesV2-GPT4-"
    pages = "/datasets/stanford-cs336/owt-sample/resolve/main/owt_"
    hub.files = {
        stories + "train.txt": TRAIN,
        stories + "valid.txt": VALID,
        pages + "train.txt.gz": gzip.compress(TRAIN),
        pages + "valid.txt.gz": gzip.compress(VALID),
    }
    small = [replace(file, bytes="unknown") for file in NAMED["tinystories"].files]
    monkeypatch.setitem(NAMED, "tinystories", replace(NAMED["tinystories"], files=tuple(small)))
    return hub


@pytest.mark.parametrize("name", ["tinystories", "openwebtext"])
def test_fetched_text_is_the_published_one_byte_for_byte(
    mirror: Hub, tmp_path: Path, name: str
) -> None:
    corpus = fetch(name, root=tmp_path)
    assert corpus.name == name
    assert [path.read_bytes() for path in corpus.train + corpus.valid] == [TRAIN, VALID]
    assert all(tmp_path / "corpora" / name in path.parents for path in corpus.train + corpus.valid)
    mirror.requests.clear()
    assert fetch(name, root=tmp_path) == corpus
    assert mirror.requests == []


def test_lmrays_own_endpoint_comes_first(
    mirror: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMRAY_HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        LmrayError, match=r"cannot fetch http://127\.0\.0\.1:9/datasets/roneneldan/"
    ):
        fetch("tinystories", root=tmp_path)


def test_tinystories_of_another_size_is_refused(
    mirror: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("LMRAY_HF_ENDPOINT", mirror.address)
    with pytest.raises(CorruptionError, match="has 19 bytes, but 2,227,753,162 were expected"):
        fetch("tinystories", root=tmp_path)


def test_a_damaged_archive_leaves_no_text(mirror: Hub, tmp_path: Path) -> None:
    for path, content in mirror.files.items():
        mirror.files[path] = content[:-4]
    with pytest.raises(CorruptionError, match=r"owt_train\.txt\.gz is damaged or cut off"):
        fetch("openwebtext", root=tmp_path)
    assert not (tmp_path / "corpora" / "openwebtext" / "train.txt").exists()


def test_every_named_corpus_explains_itself() -> None:
    assert list(NAMED) == ["stdlib", "tinystories", "openwebtext"]
    for name, corpus in NAMED.items():
        assert corpus.name == name
        assert corpus.about
