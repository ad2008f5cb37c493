import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmray.corpus import SEPARATOR
from lmray.dataset import Splits, build, exporting, open_splits
from lmray.dataset.exporting import FORMATS, export
from lmray.errors import UsageError
from lmray.tokenizer import END_OF_TEXT, Tokenizer
from tests.dataset.samples import (
    TRAIN,
    VALID,
    stored_ids,
    texts,
    tokenizer,
    write_corpus,
    write_tokenizer,
)


@pytest.fixture
def large(tmp_path: Path) -> Splits:
    """A dataset of more ids than two bytes hold."""
    vocab = {token: bytes([token]) for token in range(256)} | {65_536: END_OF_TEXT.encode()}
    saved = write_tokenizer(tmp_path / "large.json", Tokenizer(vocab, [], [END_OF_TEXT]))
    build(write_corpus(tmp_path / "corpus"), saved, tmp_path / "large")
    return open_splits(tmp_path / "large")


def test_nanogpt_maps_the_ids_as_uint16(built: Path, tmp_path: Path) -> None:
    files = export(open_splits(built), tmp_path / "out", format="nanogpt")
    assert [path.name for path in files] == ["train.bin", "val.bin"]
    for path, split in zip(files, ("train", "valid"), strict=True):
        # As nanoGPT's train.py reads it.
        data = np.memmap(path, dtype=np.uint16, mode="r")
        assert data.tolist() == stored_ids(built / split)


def test_nanogpt_has_no_room_for_more_than_65536_ids(large: Splits, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"as uint16, which 65,537 ids do not fit; use the llmc or"
    ):
        export(large, tmp_path / "out", format="nanogpt")


def read_llmc(path: Path, magic: int, version: int, dtype: type) -> list[int]:
    """What llm.c's loader checks: magic, version, and that the size is the header's."""
    data = path.read_bytes()
    header = np.frombuffer(data, dtype=np.int32, count=256)
    assert header[:2].tolist() == [magic, version]
    assert not header[3:].any()
    ids = np.frombuffer(data, dtype=dtype, offset=1024)
    assert header[2] == len(ids) > 0
    return ids.tolist()


def test_llmc_reads_the_header_and_as_many_ids(built: Path, tmp_path: Path) -> None:
    files = export(open_splits(built), tmp_path / "out", format="llmc")
    assert [path.name for path in files] == ["train_000000.bin", "val_000000.bin"]
    for path, split in zip(files, ("train", "valid"), strict=True):
        assert read_llmc(path, 20240520, 1, np.uint16) == stored_ids(built / split)


def test_llmc_reads_large_vocabularies_as_llama3s(large: Splits, tmp_path: Path) -> None:
    files = export(large, tmp_path / "out", format="llmc")
    expected = stored_ids(large.directory / "train")
    assert max(expected) == 65_536
    assert read_llmc(files[0], 20240801, 7, np.uint32) == expected


def test_llmc_files_share_the_ids_evenly(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "LLMC_TOKENS", 1000)
    monkeypatch.setattr(exporting, "_BLOCK", 300)
    files = export(open_splits(built), tmp_path / "out", format="llmc")
    parts = [read_llmc(path, 20240520, 1, np.uint16) for path in files if "train" in path.name]
    assert [token for part in parts for token in part] == stored_ids(built / "train")
    assert len(parts) == -(-len(stored_ids(built / "train")) // 1000) > 2
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert [path.name for path in files][1] == "train_000001.bin"


def documents_of(text: bytes) -> list[bytes]:
    *documents, tail = text.split(SEPARATOR)
    documents = [document + SEPARATOR for document in documents]
    return documents + [tail] if tail.strip() else documents


def check_parquet(train: bytes, valid: bytes, shard_bytes: int) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        saved, corpus = write_tokenizer(folder / "own.json"), write_corpus(folder, train, valid)
        shard_bytes = max(shard_bytes, len(train) // 20, len(valid) // 20)
        build(corpus, saved, folder / "built", shard_bytes=shard_bytes)
        files = export(open_splits(folder / "built"), folder / "out", format="parquet")
        for path, text in zip(files, (train, valid), strict=True):
            rows = pq.read_table(path)["input_ids"].to_pylist()
            assert [tokenizer().decode_bytes(ids) for ids in rows] == documents_of(text)


@settings(max_examples=15)
@given(texts.filter(bool), texts.filter(bool), st.integers(1, 200))
def test_parquet_has_a_row_for_each_document(train: bytes, valid: bytes, shard_bytes: int) -> None:
    check_parquet(train, valid, shard_bytes)


@pytest.mark.parametrize("block", [1, 500])
def test_parquet_is_written_in_groups_of_rows(
    built: Path, tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_BLOCK", block)
    files = export(open_splits(built), tmp_path / "out", format="parquet")
    assert [path.name for path in files] == ["train.parquet", "valid.parquet"]
    for path, text in zip(files, (TRAIN, VALID), strict=True):
        rows = pq.read_table(path)["input_ids"].to_pylist()
        assert [tokenizer().decode_bytes(ids) for ids in rows] == documents_of(text)
    groups = pq.ParquetFile(files[0]).num_row_groups
    assert groups == len(documents_of(TRAIN)) if block == 1 else 3 < groups < 30


def test_datasets_loads_the_parquet_files(built: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    files = export(open_splits(built), tmp_path / "out", format="parquet")
    loaded = datasets.load_dataset(
        "parquet",
        data_files={"train": str(files[0]), "validation": str(files[1])},
        cache_dir=str(tmp_path / "cache"),
    )
    for split, text in (("train", TRAIN), ("validation", VALID)):
        rows = loaded[split]["input_ids"]
        assert [tokenizer().decode_bytes(ids) for ids in rows] == documents_of(text)


@pytest.mark.parametrize("format", FORMATS)
def test_files_that_are_there_are_not_replaced(built: Path, tmp_path: Path, format: str) -> None:
    written = export(open_splits(built), tmp_path, format=format)
    before = {path: path.read_bytes() for path in written}
    written[0].unlink()
    with pytest.raises(UsageError, match=f"{written[1].name} is there already; choose another fol"):
        export(open_splits(built), tmp_path, format=format)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == {
        written[1]: before[written[1]]
    }


def test_an_unknown_format_is_refused(built: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="unknown dataset format 'csv'; choose nanogpt, llmc, parq"
    ):
        export(open_splits(built), tmp_path, format="csv")


def test_progress_ends_with_all_tokens(built: Path, tmp_path: Path) -> None:
    sizes = {
        f"export {split}": json.loads((built / split / "manifest.json").read_text())["tokens"]
        for split in ("train", "valid")
    }
    for format in FORMATS:
        last: dict[str, tuple[int, int]] = {}

        def note(
            phase: str, done: int, total: int, unit: str, last: dict[str, tuple[int, int]] = last
        ) -> None:
            last[phase] = done, total

        export(open_splits(built), tmp_path / format, format=format, progress=note)
        assert last == {phase: (size, size) for phase, size in sizes.items()}
