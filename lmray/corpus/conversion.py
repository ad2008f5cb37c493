"""Making canonical files once: whole or not at all, and re-used while their source is the same."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lmray.corpus.documents import write_document
from lmray.errors import PreflightError, UsageError
from lmray.storage import atomic_writer, read_json, sha256_file, write_json

RECORD = "source.json"
"""Says what the files beside it were made from, and how large they are."""

_HASHES = 1 << 64


def convert(
    directory: Path,
    splits: Sequence[str],
    *,
    source: dict[str, Any],
    write: Callable[[dict[str, IO[bytes]]], None],
) -> dict[str, Path]:
    """The file `<split>.txt` of each split, made by `write` unless made from an equal `source`."""
    paths = {split: directory / f"{split}.txt" for split in splits}
    record = directory / RECORD
    if not _is_current(record, source, paths):
        # Without a record, files of two different makings are never taken for a pair.
        record.unlink(missing_ok=True)
        with ExitStack() as stack:
            write({split: stack.enter_context(atomic_writer(paths[split])) for split in splits})
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
            for path in paths.values()
        }
        write_json(record, {"source": source, "files": files})
    return paths


def hold_out(
    train: IO[bytes],
    valid: IO[bytes],
    documents: Callable[[], Iterable[bytes]],
    *,
    fraction: float,
    corpus: str,
) -> None:
    """Writes about `fraction` of the documents to `valid`, at least one, and the rest to `train`.

    A document's content alone decides, so neither order nor company moves it and equal ones stay
    together. Raises PreflightError if there are not two different documents.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"valid_fraction={fraction} is not between 0 and 1; 0.05 is usual")
    spread = _distribute(train, valid, documents(), int(fraction * _HASHES))
    if spread.documents == 0:
        raise PreflightError(f"corpus {corpus!r} is empty; give files with text")
    if spread.documents == 1:
        raise PreflightError(
            f"corpus {corpus!r} is 1 document, of which none can be held out for validation: no "
            f"'<|endoftext|>' was found between two; put one on a line of its own after each "
            f"document, or name a validation file with --valid FILE"
        )
    if spread.least == spread.greatest:
        raise PreflightError(
            f"the {spread.documents:,} documents of corpus {corpus!r} are all the same, so there "
            f"is none to validate on; name a validation file with --valid FILE"
        )
    # In a small corpus chance may leave one side empty: the document nearest to it goes there.
    if spread.held_out == 0:
        _distribute(train, valid, documents(), spread.least + 1)
    elif spread.held_out == spread.documents:
        _distribute(train, valid, documents(), spread.greatest)


@dataclass
class _Spread:
    documents: int = 0
    held_out: int = 0
    least: int = _HASHES
    greatest: int = 0


def _distribute(
    train: IO[bytes], valid: IO[bytes], documents: Iterable[bytes], threshold: int
) -> _Spread:
    """Writes documents with a hash below `threshold` to `valid`, others to `train`, both afresh."""
    for file in (train, valid):
        file.seek(0)
        file.truncate()
    spread = _Spread()
    for document in documents:
        place = int.from_bytes(hashlib.sha256(document).digest()[:8], "big")
        write_document(valid if place < threshold else train, document)
        spread.documents += 1
        spread.held_out += place < threshold
        spread.least = min(spread.least, place)
        spread.greatest = max(spread.greatest, place)
    return spread


def _is_current(record: Path, source: dict[str, Any], paths: dict[str, Path]) -> bool:
    if not record.exists():
        return False
    known = read_json(record)
    sizes = {path.name: path.stat().st_size for path in paths.values() if path.exists()}
    return known["source"] == source and sizes == {
        name: facts["bytes"] for name, facts in known["files"].items()
    }
