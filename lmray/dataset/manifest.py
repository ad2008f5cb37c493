"""What a split of a token dataset says of itself: manifest.json, written last and read first."""

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
    """Name of the text file, without its folder; of imported tokens, of the file it begins in."""
    start: int
    """First byte of the range in that file; of imported tokens, in the text of the split."""
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


_SUMS = ("tokens", "bytes", "documents")


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes manifest.json, with the sums a reader wants to see at a glance."""
    sums = {key: getattr(manifest, key) for key in _SUMS}
    write_json(directory / "manifest.json", {**sums, **manifest.model_dump()})


def read_manifest(directory: Path) -> Manifest:
    """Reads manifest.json and checks that its sums are those of its shards.

    Raises PreflightError if there is none, CorruptionError if it is not what write_manifest writes.
    """
    path = directory / "manifest.json"
    if not path.exists():
        raise PreflightError(
            f"no token dataset in {directory}: manifest.json is missing; "
            f"make it with `lmray data build`"
        )
    values = read_json(path)
    if not isinstance(values, dict):
        raise _damaged(path, f"it holds {values!r:.40}")
    sums = {key: values.pop(key, "missing") for key in _SUMS}
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _damaged(path, f"{where}={first['input']!r:.40}: {first['msg']}") from None
    for key, value in sums.items():
        if value != getattr(manifest, key):
            raise _damaged(path, f"{key}={value}, its shards sum to {getattr(manifest, key)}")
    if [row.index for row in manifest.shards] != list(range(len(manifest.shards))):
        raise _damaged(path, "its shards are not numbered 0, 1, 2 ...")
    return manifest


def _damaged(path: Path, what: str) -> CorruptionError:
    return CorruptionError(
        f"{path} is damaged or not of version {FORMAT_VERSION} ({what}); "
        f"delete {path.parent} and make it again with `lmray data build`"
    )
