"""The corpora that lmray knows by name, and how each is brought here."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal

from lmray.corpus import stdlib
from lmray.corpus.conversion import convert, hold_out
from lmray.corpus.corpus import Corpus
from lmray.corpus.documents import read_blocks
from lmray.corpus.download import Expected, download
from lmray.errors import UsageError
from lmray.progress import Progress, silent

VALID_FRACTION = 0.05
"""Share of documents held out for validation where a corpus has no validation files."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set on the Hugging Face hub."""

    repository: str
    filename: str
    bytes: int | Literal["unknown"]

    @property
    def url(self) -> str:
        """Its address; LMRAY_HF_ENDPOINT, or else HF_ENDPOINT, may name a mirror of the hub."""
        hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        hub = os.environ.get("LMRAY_HF_ENDPOINT", hub).rstrip("/")
        return f"{hub}/datasets/{self.repository}/resolve/main/{self.filename}"


@dataclass(frozen=True)
class NamedCorpus:
    """A corpus by name: what it is, the files to download for it, and how it is made of them."""

    name: str
    about: str
    files: tuple[RemoteFile, ...]
    """Training text, then validation text; empty if nothing is downloaded."""
    bring: Callable[["NamedCorpus", Path, Progress], Corpus]


def fetch(name: str, *, root: Path | str, progress: Progress = silent) -> Corpus:
    """The named corpus, brought to `root`/corpora/`name` unless it is there already.

    Raises UsageError for an unknown name, LmrayError if it cannot be downloaded, and
    CorruptionError if a file is not the one expected.
    """
    if name not in NAMED:
        raise UsageError(
            f"unknown corpus {name!r}; the named ones are {', '.join(NAMED)}, and there is no file "
            f"of that name"
        )
    return NAMED[name].bring(NAMED[name], Path(root).absolute() / "corpora" / name, progress)


def _from_stdlib(named: NamedCorpus, directory: Path, progress: Progress) -> Corpus:
    modules = stdlib.modules()

    def write(outputs: dict[str, IO[bytes]]) -> None:
        hold_out(
            outputs["train"],
            outputs["valid"],
            lambda: stdlib.documents(modules, progress=progress),
            fraction=VALID_FRACTION,
            corpus=named.name,
        )

    source = stdlib.facts(modules) | {"valid_fraction": VALID_FRACTION}
    paths = convert(directory, ("train", "valid"), source=source, write=write)
    return Corpus(named.name, (paths["train"],), (paths["valid"],))


def _from_text(named: NamedCorpus, directory: Path, progress: Progress) -> Corpus:
    train, valid = _download(named, directory, progress)
    return Corpus(named.name, (train,), (valid,))


def _from_gzip(named: NamedCorpus, directory: Path, progress: Progress) -> Corpus:
    files = dict(zip(("train", "valid"), _download(named, directory, progress), strict=True))

    def write(outputs: dict[str, IO[bytes]]) -> None:
        for split, output in outputs.items():
            total = files[split].stat().st_size

            def advance(position: int, total: int = total) -> None:
                progress("decompress", position, total, "bytes")

            # Byte for byte: the published token counts are those of this very text.
            for block in read_blocks(files[split], advance=advance):
                output.write(block)

    source = {"corpus": named.name, "files": [asdict(file) for file in named.files]}
    paths = convert(directory, ("train", "valid"), source=source, write=write)
    return Corpus(named.name, (paths["train"],), (paths["valid"],))


def _download(named: NamedCorpus, directory: Path, progress: Progress) -> list[Path]:
    paths = [directory / file.filename for file in named.files]
    for file, path in zip(named.files, paths, strict=True):
        download(file.url, path, expected=Expected(bytes=file.bytes), progress=progress)
    return paths


_TINYSTORIES = "roneneldan/TinyStories"
_OPENWEBTEXT = "stanford-cs336/owt-sample"

NAMED = {
    corpus.name: corpus
    for corpus in (
        NamedCorpus(
            name="stdlib",
            about="sources of this Python's standard library: code and English; needs no network",
            files=(),
            bring=_from_stdlib,
        ),
        NamedCorpus(
            name="tinystories",
            about="TinyStoriesV2-GPT4: short stories in the words of a four-year-old",
            files=(
                RemoteFile(_TINYSTORIES, "TinyStoriesV2-GPT4-train.txt", 2_227_753_162),
                RemoteFile(_TINYSTORIES, "TinyStoriesV2-GPT4-valid.txt", 22_502_601),
            ),
            bring=_from_text,
        ),
        NamedCorpus(
            name="openwebtext",
            about="a sample of OpenWebText, the coursework's: English pages of the web",
            files=(
                RemoteFile(_OPENWEBTEXT, "owt_train.txt.gz", "unknown"),
                RemoteFile(_OPENWEBTEXT, "owt_valid.txt.gz", "unknown"),
            ),
            bring=_from_gzip,
        ),
    )
}
"""Every named corpus by its name."""
