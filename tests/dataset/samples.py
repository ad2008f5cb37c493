"""Corpora of a few documents, and a tokenizer with real merges to encode them."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import strategies as st

from lmray.corpus import SEPARATOR, Corpus
from lmray.tokenizer import END_OF_TEXT, Tokenizer, save_tokenizer, train_bpe
from tests.small import text

TRAIN = text(60, seed=1).encode() + "\n  naïve 東京 🙂\t\r\n".encode() + SEPARATOR + b"\n"
VALID = text(6, seed=2).encode()

documents = st.lists(
    st.sampled_from([b"", b" ", b"\n", b"\xe6", b"Ada sees", b" the old tree", b"<|endof", b"\r\n"])
    | st.text(max_size=8).map(lambda drawn: drawn.encode("utf-8", "surrogatepass")),
    max_size=12,
).map(b"".join)
texts = st.tuples(st.lists(documents, max_size=8), documents).map(
    lambda drawn: SEPARATOR.join([*drawn[0], drawn[1]])
)
"""Text with empty documents, with and without a last separator, not all of it UTF-8."""


@cache
def tokenizer() -> Tokenizer:
    with TemporaryDirectory() as folder:
        path = Path(folder, "train.txt")
        path.write_bytes(TRAIN)
        vocab, merges = train_bpe(path, 320, [END_OF_TEXT])
    return Tokenizer(vocab, merges, [END_OF_TEXT])


def write_tokenizer(path: Path, saved: Tokenizer | None = None) -> Path:
    save_tokenizer(saved or tokenizer(), path, corpus_digest="c0ffee")
    return path


def write_corpus(folder: Path, train: bytes = TRAIN, valid: bytes = VALID) -> Corpus:
    """A corpus of one file a split."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.txt").write_bytes(train)
    (folder / "valid.txt").write_bytes(valid)
    return Corpus("sample", (folder / "train.txt",), (folder / "valid.txt",))


def stored_ids(split: Path) -> list[int]:
    """The ids of a split by NumPy alone, in the order of the files' names."""
    return [int(i) for path in sorted(split.glob("shard-*.npy")) for i in np.load(path)]


def contents(directory: Path) -> dict[str, bytes]:
    """Every file beneath `directory` but the lock, by its path."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}
