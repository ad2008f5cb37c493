"""What a split of a token dataset says of itself: manifest.json, the last file written and the first one read."""

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from lmray.config import Section
from lmray.errors import CorruptionError, PreflightError
from lmray.storage import read_json, write_json

FORMAT_VERSION = 1

DType = Literal["uint16", "uint32"]
"""uint16 up to 65,536 ids."""


class ShardRow(Section):
    """One shard: the tokens of one byte range of one text file, as a 1-D .npy array."""

    index: int
    """Place of the shard in the split, from 0."""
    source: str
    """Name of the text file, without its folder."""
    start: int
    """First byte of the range in that file."""
    end: int
    """Byte after the last of the range."""
    tokens: int
    """Length of shard-NNNNN.npy."""
    documents: int
    """Length of ends-NNNNN.npy, the positions in the shard after each document's last token."""
    sha256: str
    """Of shard-NNNNN.npy."""
    ends_sha256: str
    """Of ends-NNNNN.npy."""


class Manifest(Section):
    """A split: its shards in order, and what they were made from."""

    format_version: Literal[1] = FORMAT_VERSION
    dtype: DType
    """Of the ids in every shard."""
    vocab_size: int
    """Every id is below it."""
    tokenizer: str
    """Fingerprint of the tokenizer."""
    corpus: str
    """Digest of the corpus."""
    shard_bytes: int
    """Text bytes a shard was planned to hold."""
    shards: list[ShardRow]

    @property
    def tokens(self) -> int:
        """Tokens in the split."""
        return sum(row.tokens for row in self.shards)

    @property
    def bytes(self) -> int:
        """Bytes of text the split was made from."""
        return sum(row.end - row.start for row in self.shards)

    @property
    def documents(self) -> int:
        """Documents in the split."""
        return sum(row.documents for row in self.shards)


def shard_file(index: int) -> str:
    """Name of the token array of shard `index`."""
    return f"shard-{index:05d}.npy"


def ends_file(index: int) -> str:
    """Name of the document ends of shard `index`."""
    return f"ends-{index:05d}.npy"


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes manifest.json, with the sums a reader wants to see at a glance."""
    sums = {
        "tokens": manifest.tokens,
        "bytes": manifest.bytes,
        "documents": manifest.documents,
    }
    write_json(directory / "manifest.json", {**sums, **manifest.model_dump()})


def read_manifest(directory: Path) -> Manifest:
    """Reads manifest.json and checks that its sums are those of its shards.

    Raises PreflightError if there is none, CorruptionError if it is not what write_manifest writes.
    """
    path = directory / "manifest.json"
    if not path.exists():
        raise PreflightError(
            f"no token dataset in {directory}: manifest.json is missing; make it with `lmray data build`"
        )
    values = read_json(path)
    try:
        sums = {key: values.pop(key) for key in ("tokens", "bytes", "documents")}
        manifest = Manifest.model_validate(values)
    except (KeyError, AttributeError, ValidationError) as error:
        raise CorruptionError(
            f"{path} is not a version {FORMAT_VERSION} manifest ({' '.join(str(error).split())}); "
            f"make the dataset again with `lmray data build`"
        ) from error
    for key, value in sums.items():
        if value != getattr(manifest, key):
            raise CorruptionError(
                f"{path}: {key}={value}, but its shards sum to {getattr(manifest, key)}; "
                f"make the dataset again with `lmray data build`"
            )
    return manifest
