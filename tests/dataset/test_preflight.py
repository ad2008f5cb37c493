import sys
from pathlib import Path

import numpy as np
import pytest

from lmray.corpus import SEPARATOR
from lmray.dataset import build, open_splits, run_here
from lmray.errors import PreflightError
from lmray.tokenizer import END_OF_TEXT, Tokenizer, native
from tests.dataset.samples import TRAIN, contents, tokenizer, write_corpus, write_tokenizer


def of_other_text() -> Tokenizer:
    """Sound, but each byte of its merges is another than the text's: as if they were misread."""
    merges = [(_shift(left), _shift(right)) for left, right in tokenizer().merges]
    tokens = [left + right for left, right in merges]
    vocab = dict(enumerate([*(bytes([byte]) for byte in range(256)), *tokens]))
    return Tokenizer(vocab, merges, [END_OF_TEXT])


def _shift(data: bytes) -> bytes:
    return bytes((byte + 128) % 256 for byte in data)


def test_text_that_becomes_bytes_in_spite_of_merges_is_refused(tmp_path: Path) -> None:
    broken = of_other_text()
    ids = broken.encode_to_numpy(TRAIN, allowed_special=())
    assert len(broken.merges) == len(tokenizer().merges) > 20
    assert len(ids) > 0.99 * len(TRAIN)
    saved = write_tokenizer(tmp_path / "tokenizer.json", broken)
    with pytest.raises(PreflightError, match=r"train split gets 1\.00\d bytes/token .*report"):
        build(write_corpus(tmp_path / "corpus"), saved, tmp_path / "tokens", shard_bytes=2000)
    assert not (tmp_path / "tokens").exists()


def test_special_tokens_do_not_hide_it(tmp_path: Path) -> None:
    """Of many bytes each, they would bring short documents above any bound."""
    saved = write_tokenizer(tmp_path / "tokenizer.json", of_other_text())
    corpus = write_corpus(tmp_path / "corpus", train=(b"Ada sees" + SEPARATOR) * 500)
    with pytest.raises(PreflightError, match="the train split gets"):
        build(corpus, saved, tmp_path / "tokens", shard_bytes=2000)


def test_the_whole_text_is_sampled_not_its_beginning(tmp_path: Path) -> None:
    """Bytes first, and far more of what merges after: a mixed corpus is not refused."""
    other = bytes(range(128, 192)) * 4 + SEPARATOR
    saved = write_tokenizer(tmp_path / "tokenizer.json")
    corpus = write_corpus(tmp_path / "corpus", train=other * 20 + TRAIN * 3)
    build(corpus, saved, tmp_path / "tokens", shard_bytes=1000)
    alone = write_corpus(tmp_path / "alone", train=other * 20)
    with pytest.raises(PreflightError, match=r"gets 1\.0\d\d bytes/token"):
        build(alone, saved, tmp_path / "alone-tokens", shard_bytes=1000)


def test_a_tokenizer_of_bytes_is_allowed(tmp_path: Path) -> None:
    single = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [], [END_OF_TEXT])
    saved = write_tokenizer(tmp_path / "tokenizer.json", single)
    build(write_corpus(tmp_path / "corpus"), saved, tmp_path / "tokens")
    ids = open_splits(tmp_path / "tokens").train
    assert np.array_equal(ids.read(0, len(ids)), single.encode_bytes(TRAIN))


def test_a_few_bytes_are_no_evidence(tmp_path: Path) -> None:
    saved = write_tokenizer(tmp_path / "tokenizer.json", of_other_text())
    corpus = write_corpus(tmp_path / "corpus", train=TRAIN[:4000], valid=TRAIN[:4000])
    build(corpus, saved, tmp_path / "tokens")
    assert (tmp_path / "tokens" / "train" / "manifest.json").exists()


def test_threads_write_the_same_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, saved = write_corpus(tmp_path / "corpus"), write_tokenizer(tmp_path / "tokenizer.json")
    monkeypatch.setattr(native, "worth_it", lambda _pattern, _bytes: False)
    build(corpus, saved, tmp_path / "one", shard_bytes=500)
    monkeypatch.setattr(native, "worth_it", lambda _pattern, _bytes: True)
    # By its name it would be the function: the package has one that is called like the module.
    monkeypatch.setattr(sys.modules["lmray.dataset.build"], "available_cores", lambda: 4)
    build(corpus, saved, tmp_path / "four", shard_bytes=500, run_tasks=run_here)
    assert contents(tmp_path / "four") == contents(tmp_path / "one")
