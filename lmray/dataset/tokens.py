"""Reading a token dataset: memory-mapped shards that look like one long array, checked when opened."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lmray.dataset.manifest import Manifest, ends_file, read_manifest, shard_file
from lmray.errors import CorruptionError, PreflightError
from lmray.storage import canonical_json, sha256_file
from lmray.tokenizer import Tokenizer, load_tokenizer


class TokenDataset:
    """One split: token ids by position, over all shards."""

    def __init__(self, directory: Path, manifest: Manifest, tokenizer: Tokenizer) -> None:
        self.directory = directory
        self.manifest = manifest
        self.token_bytes = tokenizer.token_bytes()
        """Bytes of text that each id spells."""
        self._shards = [self._map(row.index, row.tokens) for row in manifest.shards]
        self._starts = np.cumsum([0, *(row.tokens for row in manifest.shards)])

    def _map(self, index: int, tokens: int) -> np.ndarray:
        path = self.directory / shard_file(index)
        remedy = "make it again with `lmray data build`"
        try:
            array = np.load(path, mmap_mode="r") if tokens else np.load(path)
        except FileNotFoundError:
            raise CorruptionError(f"shard {path} is missing; {remedy}") from None
        except (ValueError, EOFError, OSError) as error:
            raise CorruptionError(
                f"shard {path} is truncated or no .npy file ({error}); {remedy}"
            ) from error
        if array.ndim != 1 or array.dtype != self.manifest.dtype or len(array) != tokens:
            raise CorruptionError(
                f"shard {path} holds {array.shape} {array.dtype}, its manifest says ({tokens},) "
                f"{self.manifest.dtype}; {remedy}"
            )
        return array

    def __len__(self) -> int:
        return self.manifest.tokens

    def read(self, start: int, stop: int) -> np.ndarray:
        """The ids at positions [start, stop) as int64, also where they lie in several shards."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(
                f"positions {start}:{stop} are not within the {len(self)} tokens of {self.directory}"
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
        """Positions after each document's last token, ascending, as uint64."""
        parts = [
            np.load(self.directory / ends_file(row.index)) + np.uint64(start)
            for row, start in zip(self.manifest.shards, self._starts[:-1], strict=True)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)

    def verify(self) -> None:
        """Reads every byte: checksums of all files, every id below the vocabulary size.

        Raises CorruptionError naming the first file that differs.
        """
        for row in self.manifest.shards:
            files = ((shard_file(row.index), row.sha256), (ends_file(row.index), row.ends_sha256))
            for name, expected in files:
                path = self.directory / name
                if not path.exists() or sha256_file(path) != expected:
                    raise CorruptionError(
                        f"{path} is not the file its manifest records (sha256 {expected[:12]}...); "
                        f"delete {self.directory} and make it again with `lmray data build`"
                    )
            if row.tokens and int(self._shards[row.index].max()) >= self.manifest.vocab_size:
                raise CorruptionError(
                    f"{self.directory / shard_file(row.index)} holds an id of {self._shards[row.index].max()}, "
                    f"not below vocab_size={self.manifest.vocab_size}; make it again with `lmray data build`"
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

    Raises PreflightError if it is absent, CorruptionError if a file is not what the manifest says.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    tokenizer = load_tokenizer(directory.parent / "tokenizer.json")
    if manifest.tokenizer != tokenizer.fingerprint:
        raise PreflightError(
            f"{directory} was encoded by tokenizer {manifest.tokenizer[:12]}, but "
            f"{directory.parent / 'tokenizer.json'} is {tokenizer.fingerprint[:12]}; "
            f"encode it again with `lmray data build`"
        )
    return TokenDataset(directory, manifest, tokenizer)


def open_splits(directory: Path | str) -> Splits:
    """Opens tokens/<name> with both its splits; errors as open_split."""
    directory = Path(directory)
    if not directory.is_dir():
        raise PreflightError(
            f"no token dataset at {directory}; make one with `lmray data build`, "
            f"or name it with data.tokens=DIRECTORY"
        )
    train, valid = open_split(directory / "train"), open_split(directory / "valid")
    return Splits(directory, load_tokenizer(directory / "tokenizer.json"), train, valid)
