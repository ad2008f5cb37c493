import hashlib
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmray.corpus import SEPARATOR, Corpus
from lmray.dataset import build, open_splits, read_manifest, run_here
from lmray.dataset.build import document_ends
from lmray.errors import PreflightError, UsageError
from lmray.tokenizer import END_OF_TEXT, Tokenizer
from tests.dataset.samples import (
    TRAIN,
    VALID,
    contents,
    stored_ids,
    texts,
    tokenizer,
    write_corpus,
    write_tokenizer,
)

SHARD_BYTES = 2000


@settings(max_examples=40, deadline=None)
@given(texts.filter(bool), st.integers(1, 200))
@example(TRAIN, 1)
@example(TRAIN, len(TRAIN))
@example(b"no separator", 3)
@example(SEPARATOR, 1)
@example(b" \n", 1)
def test_the_shards_are_the_tokens_of_the_whole_text(text: bytes, shard_bytes: int) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        saved, corpus = write_tokenizer(folder / "tokenizer.json"), write_corpus(folder, text)
        build(corpus, saved, folder / "tokens", shard_bytes=max(shard_bytes, len(text) // 30))
        assert stored_ids(folder / "tokens" / "train") == tokenizer().encode_bytes(text)
        assert stored_ids(folder / "tokens" / "valid") == tokenizer().encode(VALID.decode())


def test_the_shards_of_several_files_follow_each_other(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    parts = [b"Ada sees" + SEPARATOR + b"\nBen", b" likes" + SEPARATOR, b"", b"Cleo finds\n"]
    for number, part in enumerate(parts):
        (tmp_path / f"{number}.txt").write_bytes(part)
    files = tuple(tmp_path / f"{number}.txt" for number in range(len(parts)))
    build(Corpus("parts", files, files[:1]), tokenizer_file, tmp_path / "tokens", shard_bytes=5)
    expected = [i for part in parts for i in tokenizer().encode_bytes(part)]
    assert stored_ids(tmp_path / "tokens" / "train") == expected
    rows = read_manifest(tmp_path / "tokens" / "train").shards
    assert [row.source for row in rows] == ["0.txt", "0.txt", "1.txt", "3.txt"]


def test_real_text_is_encoded_as_a_whole(data_dir: Path, tmp_path: Path) -> None:
    gpt2 = Tokenizer.from_files(
        data_dir / "gpt2_vocab.json", data_dir / "gpt2_merges.txt", [END_OF_TEXT]
    )
    saved = write_tokenizer(tmp_path / "tokenizer.json", gpt2)
    train, valid = data_dir / "webtext-valid.txt", data_dir / "tinystories-valid.txt"
    build(Corpus("real", (train,), (valid,)), saved, tmp_path / "tokens", shard_bytes=100_000)
    splits = open_splits(tmp_path / "tokens")
    for split, path in ((splits.train, train), (splits.valid, valid)):
        text = path.read_text()
        assert len(split.manifest.shards) > 5
        assert split.read(0, len(split)).tolist() == gpt2.encode(text)
        assert split.manifest.documents == text.count(END_OF_TEXT)
        split.verify()


def test_the_manifest_says_what_was_encoded(
    corpus: Corpus, tokenizer_file: Path, tmp_path: Path
) -> None:
    build(corpus, tokenizer_file, tmp_path / "tokens", shard_bytes=SHARD_BYTES)
    for split, text in (("train", TRAIN), ("valid", VALID)):
        directory = tmp_path / "tokens" / split
        manifest = read_manifest(directory)
        assert manifest.tokens == len(tokenizer().encode_bytes(text))
        assert manifest.bytes == len(text)
        assert manifest.documents == text.count(SEPARATOR)
        assert (manifest.dtype, manifest.vocab_size) == ("uint16", 320)
        assert manifest.tokenizer == tokenizer().fingerprint
        assert manifest.corpus == corpus.digest()
        assert manifest.shard_bytes == SHARD_BYTES
        ends = [0, *(row.end for row in manifest.shards)]
        assert [row.start for row in manifest.shards] == ends[:-1]
        for row in manifest.shards:
            data = (directory / f"shard-{row.index:05d}.npy").read_bytes()
            assert hashlib.sha256(data).hexdigest() == row.sha256


def test_only_the_dataset_is_left(corpus: Corpus, tokenizer_file: Path, tmp_path: Path) -> None:
    build(corpus, tokenizer_file, tmp_path / "tokens", shard_bytes=SHARD_BYTES)
    shards = len(read_manifest(tmp_path / "tokens" / "train").shards)
    assert shards > 3
    assert sorted(path.name for path in (tmp_path / "tokens" / "train").iterdir()) == [
        *(f"ends-{index:05d}.npy" for index in range(shards)),
        "manifest.json",
        *(f"shard-{index:05d}.npy" for index in range(shards)),
    ]
    assert (tmp_path / "tokens" / "tokenizer.json").read_bytes() == tokenizer_file.read_bytes()


def test_tasks_may_be_carried_out_in_any_order(
    corpus: Corpus, tokenizer_file: Path, tmp_path: Path
) -> None:
    build(corpus, tokenizer_file, tmp_path / "here", shard_bytes=SHARD_BYTES)
    build(
        corpus,
        tokenizer_file,
        tmp_path / "backwards",
        shard_bytes=SHARD_BYTES,
        run_tasks=lambda tasks: run_here(tasks[::-1]),
    )
    assert contents(tmp_path / "backwards") == contents(tmp_path / "here")


def test_progress_goes_from_nothing_to_all_bytes(
    corpus: Corpus, tokenizer_file: Path, tmp_path: Path
) -> None:
    seen: list[tuple[str, int, int, str]] = []
    build(
        corpus,
        tokenizer_file,
        tmp_path / "tokens",
        shard_bytes=SHARD_BYTES,
        progress=lambda *said: seen.append(said),
    )
    for split, text in (("train", TRAIN), ("valid", VALID)):
        done = [said[1] for said in seen if said[0] == f"encode {split}"]
        assert done == sorted(set(done))
        assert (done[0], done[-1]) == (0, len(text))
    assert {said[2:] for said in seen} == {(len(TRAIN), "bytes"), (len(VALID), "bytes")}


END = 9


@pytest.mark.parametrize(
    ("text", "ids", "ends"),
    [
        (b"a<|endoftext|>\nb<|endoftext|>\n", [1, END, 2, 3, END, 2], [2, 5]),
        (b"a<|endoftext|>\nb", [1, END, 2, 3], [2, 4]),
        (b"a<|endoftext|> \n\t ", [1, END, 2, 2], [2]),
        (b"a<|endoftext|><|endoftext|>", [1, END, END], [2, 3]),
        (b"<|endoftext|>", [END], [1]),
        (b"a", [1], [1]),
        (b"\n", [2], []),
    ],
)
def test_a_document_ends_with_its_separator_or_with_the_text(
    text: bytes, ids: list[int], ends: list[int]
) -> None:
    found = document_ends(text, np.array(ids, dtype=np.uint16), END)
    assert found.tolist() == ends
    assert found.dtype == np.uint64


@pytest.mark.parametrize(("greatest", "dtype"), [(65_535, "uint16"), (65_536, "uint32")])
def test_ids_take_two_bytes_up_to_65536_of_them(
    corpus: Corpus, tmp_path: Path, greatest: int, dtype: str
) -> None:
    vocab = {token: bytes([token]) for token in range(256)} | {greatest: END_OF_TEXT.encode()}
    saved = write_tokenizer(tmp_path / "large.json", Tokenizer(vocab, [], [END_OF_TEXT]))
    build(corpus, saved, tmp_path / "tokens", shard_bytes=SHARD_BYTES)
    split = open_splits(tmp_path / "tokens").train
    split.verify()
    assert split.manifest.dtype == dtype
    assert np.load(tmp_path / "tokens" / "train" / "shard-00000.npy").dtype == dtype
    assert split.read(0, len(split)).max() == greatest
    text = split.read(0, len(split))
    assert b"".join(vocab[int(token)] for token in text) == TRAIN


def test_building_again_changes_nothing(
    corpus: Corpus, tokenizer_file: Path, tmp_path: Path
) -> None:
    target = tmp_path / "tokens"
    build(corpus, tokenizer_file, target, shard_bytes=SHARD_BYTES)
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}

    def nothing_to_do(tasks: object) -> list[object]:
        raise AssertionError

    build(corpus, tokenizer_file, target, shard_bytes=SHARD_BYTES, run_tasks=nothing_to_do)
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before


def other_tokenizer() -> Tokenizer:
    return Tokenizer({token: bytes([token]) for token in range(256)}, [], [END_OF_TEXT])


def test_tokens_of_something_else_are_not_replaced(
    corpus: Corpus, tokenizer_file: Path, tmp_path: Path
) -> None:
    target = tmp_path / "tokens"
    build(corpus, tokenizer_file, target, shard_bytes=SHARD_BYTES)
    before = contents(target)
    with pytest.raises(PreflightError, match=r"tokens holds tokens of another tokenizer \("):
        build(corpus, write_tokenizer(tmp_path / "other.json", other_tokenizer()), target)
    with pytest.raises(PreflightError, match=r"train was made from something else: shard_bytes="):
        build(corpus, tokenizer_file, target, shard_bytes=SHARD_BYTES + 1)
    other = write_corpus(tmp_path / "other", TRAIN[1:])
    with pytest.raises(PreflightError, match=r"train was made from something else: corpus='.*del"):
        build(other, tokenizer_file, target, shard_bytes=SHARD_BYTES)
    assert contents(target) == before


def test_a_replaced_tokenizer_is_noticed_within_one_process(
    corpus: Corpus, tokenizer_file: Path, tmp_path: Path
) -> None:
    target = tmp_path / "tokens"
    build(corpus, tokenizer_file, target)
    shutil.rmtree(target)
    build(corpus, write_tokenizer(tmp_path / "other.json", other_tokenizer()), target)
    assert stored_ids(target / "train") == other_tokenizer().encode_bytes(TRAIN)


@pytest.mark.parametrize("empty", ["train", "valid"])
def test_a_split_without_text_is_refused_before_anything_is_written(
    tokenizer_file: Path, tmp_path: Path, empty: str
) -> None:
    corpus = write_corpus(tmp_path / "corpus", **{empty: b""})
    message = rf"the {empty} split has no text \(.*/{empty}.txt\); give it files with text"
    with pytest.raises(PreflightError, match=message):
        build(corpus, tokenizer_file, tmp_path / "tokens")
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize(
    ("specials", "message"),
    [
        ([], r"no special token '<\|endoftext\|>' .*pass special_tokens="),
        ([END_OF_TEXT, END_OF_TEXT * 2], r"can share characters with .*use a tokenizer without"),
        ([END_OF_TEXT, ">\n"], r"special token '>\\n' can share characters"),
    ],
)
def test_a_tokenizer_that_cannot_be_cut_at_documents_is_refused(
    corpus: Corpus, tmp_path: Path, specials: list[str], message: str
) -> None:
    vocab = {token: bytes([token]) for token in range(256)}
    saved = write_tokenizer(tmp_path / "odd.json", Tokenizer(vocab, [], specials))
    with pytest.raises(UsageError, match=message):
        build(corpus, saved, tmp_path / "tokens")


def test_a_special_token_apart_from_the_separator_is_encoded(tmp_path: Path) -> None:
    text = b"Ada<|pause|>sees" + SEPARATOR + b"<|pause|>" + SEPARATOR + b"\n"
    vocab = {token: bytes([token]) for token in range(256)}
    odd = Tokenizer(vocab, [], [END_OF_TEXT, "<|pause|>"])
    saved = write_tokenizer(tmp_path / "odd.json", odd)
    build(write_corpus(tmp_path, text), saved, tmp_path / "tokens", shard_bytes=1)
    assert stored_ids(tmp_path / "tokens" / "train") == odd.encode(text.decode())
    assert open_splits(tmp_path / "tokens").train.document_ends.tolist() == [9, 11]
