"""The documents, as bytes, of the kinds of file a corpus may come in, one at a time.

A document of a text file is what stands between separators, without the line end that follows a
separator; a file without separators is one document. Of .jsonl and .parquet it is a row's `text`.
"""

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lmray.corpus.ranges import SEPARATOR, find_separator
from lmray.errors import CorruptionError, UsageError
from lmray.progress import Progress

FIELD = "text"
"""The field of a .jsonl line, and the column of a .parquet file, that holds a document."""

Advance = Callable[[int], None]
"""Told now and then how far into its file, in bytes as they lie on disk, a reader has come."""

_BLOCK = 1 << 20
_ROWS = 256


def read_documents(path: Path, *, advance: Advance) -> Iterator[bytes]:
    """The documents of a .txt, .txt.gz, .jsonl or .parquet file, in order.

    Raises UsageError for a file that cannot be read, is of another kind or has no `text`, and
    CorruptionError for a damaged one; both name the line where there is one.
    """
    if is_text(path):
        return split_documents(read_blocks(path, advance=advance))
    if path.name.endswith(".jsonl"):
        return _json_lines(path, advance)
    if path.name.endswith(".parquet"):
        return _parquet(path, advance)
    raise UsageError(
        f"{path} is of a kind that lmray does not read; give .txt, .txt.gz, .jsonl or .parquet"
    )


def read_all(paths: Sequence[Path], *, progress: Progress) -> Iterator[bytes]:
    """The documents of several files, one file after the other."""
    sizes = [file_size(path) for path in paths]
    before = 0
    for path, size in zip(paths, sizes, strict=True):

        def advance(position: int, before: int = before) -> None:
            progress("corpus", before + position, sum(sizes), "bytes")

        yield from read_documents(path, advance=advance)
        before += size


def file_size(path: Path) -> int:
    """Size in bytes; UsageError if there is no such file."""
    with _opened(path) as file:
        return file.seek(0, 2)


def is_text(path: Path) -> bool:
    """Whether the file is running text, compressed or not, rather than rows of documents."""
    return path.name.endswith((".txt", ".txt.gz"))


def has_separator(path: Path) -> bool:
    """Whether a text file holds a separator; reads up to the first."""
    with _opened(path) as file:
        return find_separator(_decompressed(path, file), 0) >= 0


def read_blocks(path: Path, *, advance: Advance) -> Iterator[bytes]:
    """The bytes of a text file, decompressed and otherwise as they are."""
    with _opened(path) as file:
        text = _decompressed(path, file)
        while block := text.read(_BLOCK):
            yield block
            advance(file.tell())


def split_documents(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The documents of text that arrives in blocks, wherever these are cut."""
    held = bytearray()
    searched, line_end = 0, b""
    for block in blocks:
        held += block
        while (end := held.find(SEPARATOR, searched)) >= 0:
            yield bytes(held[:end]).removeprefix(line_end)
            del held[: end + len(SEPARATOR)]
            searched, line_end = 0, b"\n"
        # The next block may complete a separator that this one has begun.
        searched = max(0, len(held) - len(SEPARATOR) + 1)
    if held.strip():
        yield bytes(held).removeprefix(line_end)


def write_document(file: IO[bytes], document: bytes) -> None:
    """Writes a document as canonical text: on lines of its own, then a line with the separator."""
    file.write(document)
    if not document.endswith(b"\n"):
        file.write(b"\n")
    file.write(SEPARATOR + b"\n")


def _json_lines(path: Path, advance: Advance) -> Iterator[bytes]:
    with _opened(path) as file:
        position = 0
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _json_document(f"{path}:{number}", line)
            position += len(line)
            if number % _ROWS == 0:
                advance(position)
        advance(position)


def _json_document(place: str, line: bytes) -> bytes:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise CorruptionError(
            f"{place} is not valid JSON ({error}); remove or repair that line"
        ) from error
    if not isinstance(row, dict) or not isinstance(row.get(FIELD), str):
        found = f"an object with {', '.join(row) or 'no fields'}" if isinstance(row, dict) else line
        raise UsageError(
            f"{place} has no string in a field {FIELD!r} but is {found!r:.200}; rename the field "
            f"or drop the line"
        )
    # JSON can spell half a surrogate pair; it is kept as the bytes that stand for it.
    return row[FIELD].encode("utf-8", "surrogatepass")


def _parquet(path: Path, advance: Advance) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _opened(path) as file:
        try:
            table = pq.ParquetFile(file)
            _check_text_column(path, table.schema_arrow)
            size, row = path.stat().st_size, 0
            for batch in table.iter_batches(batch_size=_ROWS, columns=[FIELD]):
                for text in batch.column(0).cast(pa.large_binary()).to_pylist():
                    row += 1
                    if text is None:
                        raise UsageError(f"{path}, row {row}, has no {FIELD!r}; drop such rows")
                    yield text
                advance(size * row // table.metadata.num_rows)
        except pa.ArrowException as error:
            raise CorruptionError(
                f"{path} is not a whole parquet file ({error}); fetch it again"
            ) from error


def _check_text_column(path: Path, schema) -> None:
    import pyarrow as pa

    if FIELD not in schema.names:
        raise UsageError(
            f"{path} has no column {FIELD!r} but {', '.join(schema.names)}; rename the column that "
            f"holds the documents"
        )
    kind = schema.field(FIELD).type
    if kind not in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        raise UsageError(f"column {FIELD!r} of {path} holds {kind}; it must hold strings")


def _decompressed(path: Path, file: IO[bytes]) -> IO[bytes]:
    return io.BufferedReader(gzip.GzipFile(fileobj=file)) if path.name.endswith(".gz") else file


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The open file, and what is wrong with it in one line."""
    try:
        with path.open("rb") as file:
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorruptionError(
            f"{path} is damaged or cut off ({error}); fetch or make it again"
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot read {path} ({error.strerror}); check the path and its permissions"
        ) from error
