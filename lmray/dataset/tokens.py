"""Reading a token dataset: mapped shards that look like one long array, checked when opened."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tokenize import TokenError

import numpy as np

from lmray import remote
from lmray.dataset.manifest import Manifest, ends_file, read_manifest, shard_file
from lmray.errors import CorruptionError, PreflightError
from lmray.storage import canonical_json, sha256_file
from lmray.tokenizer import Tokenizer, load_tokenizer


class TokenDataset:
    """One split: token ids by position, over all shards."""

    def __init__(self, directory: Path, manifest: Manifest, tokenizer: Tokenizer) -> None:
        """Maps the shards and checks their dtype and length; errors as `open_split`."""
        self.directory = directory
        self.manifest = manifest
        self.token_bytes = tokenizer.token_bytes()
        """Bytes of text that each id spells."""
        self._shards = [
            _map(directory / shard_file(row.index), manifest.dtype, row.tokens)
            for row in manifest.shards
        ]
        self._starts = np.cumsum([0, *(row.tokens for row in manifest.shards)])

    def __len__(self) -> int:
        return self.manifest.tokens

    def read(self, start: int, stop: int) -> np.ndarray:
        """The ids at positions [start, stop) as int64, also where they lie in several shards."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(
                f"positions {start}:{stop} are not within the {len(self)} tokens of "
                f"{self.directory}"
            )
        out = np.empty(stop - start, dtype=np.int64)
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        filled = 0
        while filled < len(out):
            offset = start + filled - self._starts[shard]
            piece = self._shards[shard][offset : offset + len(out) - filled]
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
            shard += 1
        return out

    @cached_property
    def document_ends(self) -> np.ndarray:
        """Positions after each document's last token, ascending, as uint64.

        Raises CorruptionError if a file of them is not what the manifest says.
        """
        parts = [
            _map(self.directory / ends_file(row.index), "uint64", row.documents) + np.uint64(start)
            for row, start in zip(self.manifest.shards, self._starts[:-1], strict=True)
        ]
        return np.concatenate([np.empty(0, dtype=np.uint64), *parts])

    def verify(self) -> None:
        """Reads every byte: the checksums of all files, and that ids are below the vocabulary size.

        Raises CorruptionError naming the first file that differs.
        """
        for row, shard in zip(self.manifest.shards, self._shards, strict=True):
            files = {shard_file(row.index): row.sha256, ends_file(row.index): row.ends_sha256}
            for name, expected in files.items():
                path = self.directory / name
                found = sha256_file(path) if path.exists() else "missing"
                if found != expected:
                    raise _not_recorded(path, f"sha256 {found:.12}", f"{expected:.12}")
            greatest = int(shard.max(initial=0))
            if greatest >= self.manifest.vocab_size:
                path = self.directory / shard_file(row.index)
                below = f"ids below vocab_size={self.manifest.vocab_size}"
                raise _not_recorded(path, f"an id of {greatest}", below)


def _map(path: Path, dtype: str, length: int) -> np.ndarray:
    """The 1-D array of a .npy file, on disk until it is read."""
    expected = f"({length},) {dtype}"
    if not path.exists():
        raise _not_recorded(path, "missing", expected)
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, SyntaxError, TokenError) as error:  # what NumPy says of damaged headers
        raise _not_recorded(path, f"truncated or no .npy file: {error}", expected) from error
    if array.shape != (length,) or array.dtype != dtype:
        raise _not_recorded(path, f"{array.shape} {array.dtype}", expected)
    return array


def _not_recorded(path: Path, found: str, expected: str) -> CorruptionError:
    return CorruptionError(
        f"{path} is not the file its manifest records ({found}; recorded {expected}); "
        f"delete {path.parent} and make it again with `lmray data build`"
    )


@dataclass(frozen=True)
class Splits:
    """A whole token dataset: train, valid and the tokenizer that made both."""

    directory: Path
    tokenizer: Tokenizer
    train: TokenDataset
    valid: TokenDataset

    @property
    def digest(self) -> str:
        """Changes when a token of either split or the tokenizer changes; enters every run id."""
        identity = {
            "tokenizer": self.tokenizer.fingerprint,
            "train": [row.sha256 for row in self.train.manifest.shards],
            "valid": [row.sha256 for row in self.valid.manifest.shards],
        }
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()


def open_split(directory: Path | str) -> TokenDataset:
    """Opens tokens/<name>/<split> and checks every shard's dtype and length, and the tokenizer.

    Raises PreflightError if it is absent or of another tokenizer, CorruptionError if a file is not
    what the manifest says.
    """
    directory = remote.cached(directory)
    fetched = remote.refresh(directory.parent)
    manifest = read_manifest(directory)
    tokenizer = load_tokenizer(directory.parent / "tokenizer.json")
    return _open(directory, manifest, tokenizer, fetched)


def open_splits(directory: Path | str) -> Splits:
    """Opens tokens/<name> with both its splits; errors as `open_split`."""
    directory = remote.cached(directory)
    fetched = remote.refresh(directory)
    if not directory.is_dir():
        raise PreflightError(
            f"no token dataset at {directory}; make one with `lmray data build`, "
            f"or name it with data.tokens=DIRECTORY"
        )
    manifests = [read_manifest(directory / split) for split in ("train", "valid")]
    tokenizer = load_tokenizer(directory / "tokenizer.json")
    train = _open(directory / "train", manifests[0], tokenizer, fetched)
    valid = _open(directory / "valid", manifests[1], tokenizer, fetched)
    return Splits(directory, tokenizer, train, valid)


def _open(
    directory: Path, manifest: Manifest, tokenizer: Tokenizer, fetched: Collection[Path]
) -> TokenDataset:
    """Opens a split; files that were just fetched from a URL are compared with their checksums."""
    if manifest.tokenizer != tokenizer.fingerprint:
        raise PreflightError(
            f"{directory} was encoded by tokenizer {manifest.tokenizer:.12}, but "
            f"{directory.parent / 'tokenizer.json'} is {tokenizer.fingerprint:.12}; "
            f"encode it again with `lmray data build`"
        )
    for row in manifest.shards:
        files = {shard_file(row.index): row.sha256, ends_file(row.index): row.ends_sha256}
        for path in {directory / name for name in files} & set(fetched):
            found = sha256_file(path)
            if found != files[path.name]:
                path.unlink()
                raise _not_recorded(path, f"sha256 {found:.12}", f"{files[path.name]:.12}")
    return TokenDataset(directory, manifest, tokenizer)
