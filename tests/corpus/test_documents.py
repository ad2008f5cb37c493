import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.corpus import SEPARATOR
from lmray.corpus.documents import has_separator, read_all, read_documents, split_documents
from lmray.errors import CorruptionError, LmrayError, UsageError
from lmray.progress import silent

DOCUMENTS = [b"Once upon a time.\n", "naïve 東京".encode(), b"", b"\nlast\n\n"]
CANONICAL = b"Once upon a time.\n<|endoftext|>\nna\xc3\xafve<|endoftext|>\n\xff<|endoftext|>\n"


def documents(path: Path) -> list[bytes]:
    return list(read_all([path], progress=silent))


@given(
    st.lists(st.sampled_from([SEPARATOR, b"<|end", b"oftext|>", b"\n", b"a"]), max_size=20),
    st.integers(1, 30),
)
def test_splitting_does_not_depend_on_blocks(parts: list[bytes], size: int) -> None:
    data = b"".join(parts)
    first, *rest = data.split(SEPARATOR)
    expected = [first, *(document.removeprefix(b"\n") for document in rest)]
    if not data.split(SEPARATOR)[-1].strip():
        expected.pop()
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    assert list(split_documents(blocks)) == expected


def test_text(tmp_path: Path) -> None:
    expected = [b"Once upon a time.\n", b"na\xc3\xafve", b"\xff"]
    plain, packed = tmp_path / "a.txt", tmp_path / "a.txt.gz"
    plain.write_bytes(CANONICAL)
    packed.write_bytes(gzip.compress(CANONICAL))
    assert documents(plain) == documents(packed) == expected
    assert has_separator(plain)
    assert has_separator(packed)


def test_text_without_separators_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(b"line\n\nline")
    assert documents(path) == [b"line\n\nline"]
    assert not has_separator(path)
    path.write_bytes(b" \n")
    assert documents(path) == []


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": document.decode(), "id": 1} for document in DOCUMENTS]
    path.write_text("\n\n".join(map(json.dumps, rows)))
    assert documents(path) == DOCUMENTS
    path.write_bytes(b'{"text": "half \\ud83d"}')
    assert documents(path) == [b"half \xed\xa0\xbd"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "a.parquet"
    rows = [*DOCUMENTS, *[b"more"] * 1_000]
    column = pa.array(rows, pa.binary()).cast(kind)
    pq.write_table(pa.table({"id": range(len(rows)), "text": column}), path, row_group_size=300)
    assert documents(path) == rows


def test_progress_ends_at_the_size_of_the_files(tmp_path: Path) -> None:
    files = [tmp_path / "a.txt.gz", tmp_path / "b.jsonl", tmp_path / "c.parquet"]
    files[0].write_bytes(gzip.compress(CANONICAL))
    files[1].write_text('{"text": "a"}\n{"text": "b"}\n')
    pq.write_table(pa.table({"text": ["a"]}), files[2])
    seen = []
    list(read_all(files, progress=lambda *report: seen.append(report)))
    total = sum(path.stat().st_size for path in files)
    assert seen[-1] == ("corpus", total, total, "bytes")
    assert [report[1] for report in seen] == sorted(report[1] for report in seen)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.txt.gz", b"plain text", CorruptionError, "a.txt.gz is damaged or cut off"),
        ("a.txt.gz", gzip.compress(CANONICAL * 99)[:-20], CorruptionError, "damaged or cut off"),
        ("a.jsonl", b'{"text": "a"}\n{"te', CorruptionError, "a.jsonl:2 is not valid JSON"),
        ("a.jsonl", b'{"text": "\xff"}', CorruptionError, "a.jsonl:1 is not valid JSON"),
        (
            "a.jsonl",
            b'{"text": "a"}\n\n{"body": "b"}',
            UsageError,
            "a.jsonl:3 has no string .*body",
        ),
        ("a.jsonl", b'{"text": 3}', UsageError, "a.jsonl:1 has no string in a field 'text'"),
        ("a.jsonl", b'"text"', UsageError, "a.jsonl:1 has no string in a field 'text'"),
        (
            "a.parquet",
            b"PAR1 and no more",
            CorruptionError,
            "a.parquet is not a whole parquet file",
        ),
        ("a.pdf", b"", UsageError, "a.pdf is of a kind that lmray does not read; give .txt"),
    ],
)
def test_bad_files_are_explained(
    tmp_path: Path, name: str, content: bytes, error: type[LmrayError], message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(error, match=message):
        documents(path)


def test_bad_columns_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["a"], "id": [1]}), path)
    with pytest.raises(UsageError, match="has no column 'text' but body, id"):
        documents(path)
    pq.write_table(pa.table({"text": [1]}), path)
    with pytest.raises(UsageError, match=r"column 'text' of .* holds int64"):
        documents(path)
    pq.write_table(pa.table({"text": ["a", None]}), path)
    with pytest.raises(UsageError, match="row 2, has no 'text'"):
        documents(path)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.parquet"])
def test_a_missing_file_is_explained(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*No such file"):
        documents(tmp_path / name)
    with pytest.raises(UsageError, match=r"cannot read .*No such file"):
        list(read_documents(tmp_path / name, advance=lambda position: None))
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=r"cannot read .*directory"):
        documents(tmp_path / name)
