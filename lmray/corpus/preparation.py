"""From a user's files, of whatever kind, to a corpus."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from lmray.corpus.conversion import convert, hold_out
from lmray.corpus.corpus import Corpus
from lmray.corpus.documents import file_size, has_separator, read_all, write_document
from lmray.corpus.named import VALID_FRACTION, fetch
from lmray.errors import PreflightError, UsageError
from lmray.progress import Progress, silent


def prepare(
    source: str | Sequence[Path | str],
    *,
    name: str,
    root: Path | str,
    valid: Sequence[Path | str] = (),
    valid_fraction: float = VALID_FRACTION,
    progress: Progress = silent,
) -> Corpus:
    """The corpus `name` made of a named corpus, or of files and validation files, if any.

    A split whose files are all .txt with separators is used in place. Others are converted, once,
    to `root`/corpora/`name`. Without validation files, about `valid_fraction` of the documents are
    held out, chosen by their content.
    """
    if isinstance(source, str):
        if valid:
            raise UsageError(f"corpus {source!r} has its own validation split; drop --valid")
        return replace(fetch(source, root=root, progress=progress), name=name)
    if not source:
        raise UsageError("no corpus given; name at least one file or a named corpus")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(
            f"corpus name {name!r} is no file name; use letters, digits, '.', '_', '-'"
        )

    directory = Path(root).absolute() / "corpora" / name
    splits = {"train": _absolute(source), "valid": _absolute(valid)}
    if not valid:
        paths = _split_by_content(name, directory, splits["train"], valid_fraction, progress)
        return Corpus(name, (paths["train"],), (paths["valid"],))

    converted = [split for split, files in splits.items() if not _is_canonical(files)]
    if converted:

        def write(outputs: dict[str, IO[bytes]]) -> None:
            for split, output in outputs.items():
                _join(output, splits[split], progress, f"{split} split of corpus {name!r}")

        stamps = {split: [_stamp(path) for path in splits[split]] for split in converted}
        paths = convert(directory, converted, source=stamps, write=write)
        splits |= {split: (path,) for split, path in paths.items()}
    return Corpus(name, splits["train"], splits["valid"])


def _split_by_content(
    name: str, directory: Path, files: Sequence[Path], fraction: float, progress: Progress
) -> dict[str, Path]:
    def write(outputs: dict[str, IO[bytes]]) -> None:
        hold_out(
            outputs["train"],
            outputs["valid"],
            lambda: read_all(files, progress=progress),
            fraction=fraction,
            corpus=name,
        )

    source = {"files": [_stamp(path) for path in files], "valid_fraction": fraction}
    return convert(directory, ("train", "valid"), source=source, write=write)


def _join(output: IO[bytes], files: Sequence[Path], progress: Progress, whose: str) -> None:
    documents = 0
    for document in read_all(files, progress=progress):
        write_document(output, document)
        documents += 1
    if documents == 0:
        raise PreflightError(
            f"the {whose} is empty: no text in {', '.join(map(str, files))}; give files with text"
        )


def _is_canonical(files: Sequence[Path]) -> bool:
    return all(path.suffix == ".txt" and has_separator(path) for path in files)


def _absolute(files: Sequence[Path | str]) -> tuple[Path, ...]:
    return tuple(Path(file).absolute() for file in files)


def _stamp(path: Path) -> dict[str, Any]:
    """What tells a changed file from an unchanged one without reading it."""
    size = file_size(path)
    return {"path": str(path), "bytes": size, "modified_ns": path.stat().st_mtime_ns}
