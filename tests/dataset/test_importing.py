import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmray.corpus import Corpus
from lmray.dataset import build, importing, open_splits, read_manifest
from lmray.dataset.exporting import export
from lmray.dataset.importing import import_tokens
from lmray.errors import CorruptionError, PreflightError, UsageError
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

END = tokenizer().end_of_text


def save_npy(built: Path, folder: Path, dtype: str) -> list[Path]:
    folder.mkdir()
    for split in ("train", "valid"):
        np.save(folder / f"{split}.npy", np.array(stored_ids(built / split), dtype=dtype))
    return [folder / "train.npy", folder / "valid.npy"]


def files_of(built: Path, folder: Path, format: str) -> list[Path]:
    """The two files of a dataset in a format."""
    if format in ("nanogpt", "llmc"):
        return export(open_splits(built), folder, format=format)
    return save_npy(built, folder, format)


def imported(files: list[Path], target: Path, shard_bytes: int = 2000) -> Path:
    """A token dataset of a training and a validation file."""
    saved = write_tokenizer(target.parent / "their-tokenizer.json")
    corpus = Corpus("theirs", (files[0],), (files[1],))
    import_tokens(corpus, saved, target, shard_bytes=shard_bytes)
    return target


def assert_same_shards(one: Path, other: Path) -> None:
    """All files equal but the manifests, and those but for the files' names and digest."""
    files, others = contents(one), contents(other)
    for split in ("train", "valid"):
        name = f"{split}/manifest.json"
        found, expected = read_manifest(one / split), read_manifest(other / split)
        assert [row.model_copy(update={"source": ""}) for row in found.shards] == [
            row.model_copy(update={"source": ""}) for row in expected.shards
        ]
        assert found.model_copy(update={"shards": [], "corpus": ""}) == expected.model_copy(
            update={"shards": [], "corpus": ""}
        )
        del files[name], others[name]
    assert files == others


def check_round_trip(format: str, train: bytes, valid: bytes, shard_bytes: int) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        saved, corpus = write_tokenizer(folder / "own.json"), write_corpus(folder, train, valid)
        shard_bytes = max(shard_bytes, len(train) // 20, len(valid) // 20)
        build(corpus, saved, folder / "built", shard_bytes=shard_bytes)
        files = files_of(folder / "built", folder / "files", format)
        target = imported(files, folder / "again", shard_bytes)
        assert_same_shards(target, folder / "built")


some_texts = texts.filter(bool)


@pytest.mark.parametrize("format", ["nanogpt", "llmc", ">i8"])
@settings(max_examples=15)
@given(train=some_texts, valid=some_texts, shard_bytes=st.integers(1, 200))
def test_exported_and_imported_it_is_the_same_shards(
    format: str, train: bytes, valid: bytes, shard_bytes: int
) -> None:
    check_round_trip(format, train, valid, shard_bytes)


@pytest.mark.parametrize("format", ["nanogpt", "llmc", "<u4"])
def test_a_dataset_of_several_shards_comes_back_and_verifies(
    built: Path, tmp_path: Path, format: str
) -> None:
    target = imported(files_of(built, tmp_path / "files", format), tmp_path / "again")
    assert_same_shards(target, built)
    splits = open_splits(target)
    splits.train.verify()
    assert len(splits.train.manifest.shards) > 1
    assert splits.train.manifest.bytes == len(TRAIN)
    assert splits.digest == open_splits(built).digest


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_the_size_of_blocks_does_not_matter(
    built: Path, tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "_BLOCK", block)
    files = [tmp_path / "short.npy", tmp_path / "valid.npy"]
    ids = np.array(stored_ids(built / "train"))[:2000]
    np.save(files[0], ids)
    np.save(files[1], stored_ids(built / "valid"))
    found = open_splits(imported(files, tmp_path / "again", shard_bytes=500)).train
    assert found.read(0, len(found)).tolist() == ids.tolist()
    ends = np.flatnonzero(ids == END) + 1
    assert found.document_ends.tolist() == [*ends, len(ids)]
    *cuts, _ = np.cumsum([row.tokens for row in found.manifest.shards])
    assert all(ids[cut - 1] == END for cut in cuts)
    assert all(500 <= row.end - row.start < 1500 for row in found.manifest.shards[:-1])


def test_the_files_of_a_split_follow_each_other(built: Path, tmp_path: Path) -> None:
    ids = np.array(stored_ids(built / "train"), dtype=np.uint16)
    whole = imported(save_npy(built, tmp_path / "whole", "<u2"), tmp_path / "one")
    parts = [tmp_path / f"{place}.npy" for place in range(4)]
    for path, part in zip(parts, np.split(ids, [5, 900, 903]), strict=True):
        np.save(path, part)
    valid = (tmp_path / "whole" / "valid.npy",)
    saved = tmp_path / "their-tokenizer.json"
    import_tokens(Corpus("parts", tuple(parts), valid), saved, tmp_path / "two", shard_bytes=2000)
    assert_same_shards(tmp_path / "two", whole)
    sources = [row.source for row in read_manifest(tmp_path / "two" / "train").shards]
    assert sources[0] == "0.npy"
    assert sources[-1] == "3.npy"
    twice = Corpus("twice", (parts[1], parts[1]), valid)
    import_tokens(twice, saved, tmp_path / "three")
    assert stored_ids(tmp_path / "three" / "train") == [*ids[5:900], *ids[5:900]]


def test_ids_without_any_end_of_text_are_cut_into_shards_all_the_same(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "MOST_IDS", 100)
    monkeypatch.setattr(importing, "_BLOCK", 64)
    ids = [token for token in stored_ids(built / "train") if token != END][:950]
    for name in ("train", "valid"):
        np.save(tmp_path / f"{name}.npy", ids)
    files = [tmp_path / "train.npy", tmp_path / "valid.npy"]
    split = open_splits(imported(files, tmp_path / "again")).train
    assert [row.tokens for row in split.manifest.shards] == [100] * 9 + [50]
    assert split.document_ends.tolist() == [950]
    assert split.read(0, len(split)).tolist() == ids
    assert split.manifest.bytes == len(tokenizer().decode_bytes(ids))


def test_importing_again_changes_nothing_and_other_files_are_refused(
    built: Path, tmp_path: Path
) -> None:
    files = save_npy(built, tmp_path / "files", "<u2")
    target = imported(files, tmp_path / "again")
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*.npy")}
    imported(files, tmp_path / "again")
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*.npy")} == before
    np.save(files[0], np.array([1, 2, END]))
    with pytest.raises(PreflightError, match=r"train was made from something else: corpus="):
        imported(files, tmp_path / "again")


def test_an_interrupted_import_is_made_anew(built: Path, tmp_path: Path) -> None:
    files = save_npy(built, tmp_path / "files", "<u2")
    target = imported(files, tmp_path / "again")
    whole = contents(target)
    (target / "valid" / "manifest.json").unlink()
    (target / "valid" / "shard-00000.npy").write_bytes(b"torn")
    shutil.copy(target / "train" / "ends-00000.npy", target / "valid" / "shard-00077.npy")
    imported(files, tmp_path / "again")
    assert contents(target) == whole


@pytest.mark.parametrize(
    ("dtype", "bad"), [("<u2", 320), ("<i4", -1), ("<i8", 2**40), ("<u8", 2**64 - 1), ("|u1", None)]
)
def test_an_id_that_is_no_token_is_refused_with_its_place(
    tmp_path: Path, dtype: str, bad: int | None
) -> None:
    good = np.array([1, 2, 200] * 10, dtype=dtype)
    np.save(tmp_path / "valid.npy", good)
    if bad is not None:
        good[17] = bad
    np.save(tmp_path / "train.npy", good)
    files = [tmp_path / "train.npy", tmp_path / "valid.npy"]
    if bad is None:
        assert stored_ids(imported(files, tmp_path / "again") / "train") == good.tolist()
        return
    message = rf"id {bad} at position 17 of .*train.npy is no token .* has 320 ids; give the token"
    with pytest.raises(PreflightError, match=message):
        imported(files, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_an_id_in_a_gap_of_the_vocabulary_is_refused(tmp_path: Path) -> None:
    vocab = {token: bytes([token]) for token in range(256)} | {300: END_OF_TEXT.encode()}
    saved = write_tokenizer(tmp_path / "gappy.json", Tokenizer(vocab, [], [END_OF_TEXT]))
    np.save(tmp_path / "ids.npy", [65, 300, 66, 299])
    corpus = Corpus("gappy", (tmp_path / "ids.npy",), (tmp_path / "ids.npy",))
    with pytest.raises(PreflightError, match="id 299 at position 3"):
        import_tokens(corpus, saved, tmp_path / "tokens")


def test_a_tokenizer_without_end_of_text_or_another_one_is_refused(
    built: Path, tmp_path: Path
) -> None:
    files = save_npy(built, tmp_path / "files", "<u2")
    corpus = Corpus("theirs", (files[0],), (files[1],))
    vocab = {token: bytes([token]) for token in range(256)}
    bare = write_tokenizer(tmp_path / "bare.json", Tokenizer(vocab, []))
    with pytest.raises(UsageError, match=r"has no special token '<.endoftext.>'"):
        import_tokens(corpus, bare, tmp_path / "tokens")
    imported(files, tmp_path / "again")
    other = write_tokenizer(tmp_path / "other.json", Tokenizer(vocab, [], [END_OF_TEXT]))
    with pytest.raises(PreflightError, match="holds tokens of another tokenizer"):
        import_tokens(corpus, other, tmp_path / "again")


def test_a_split_without_files_or_with_a_torn_one_is_refused(built: Path, tmp_path: Path) -> None:
    files = export(open_splits(built), tmp_path / "files", format="llmc")
    saved = write_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(PreflightError, match="the valid split has no files; give --valid FILE"):
        import_tokens(Corpus("theirs", (files[0],), ()), saved, tmp_path / "again")
    files[1].write_bytes(files[1].read_bytes()[:-1])
    with pytest.raises(CorruptionError, match=r"val_000000.bin says it has .* copy it again whole"):
        imported(files, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_was_trained_on_is_what_the_text_is(built: Path, tmp_path: Path) -> None:
    files = export(open_splits(built), tmp_path / "files", format="nanogpt")
    splits = open_splits(imported(files, tmp_path / "again"))
    for split, text in ((splits.train, TRAIN), (splits.valid, VALID)):
        assert tokenizer().decode_bytes(split.read(0, len(split)).tolist()) == text
