"""A corpus: named text, split into training and validation, in canonical files."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lmray.storage import canonical_json, sha256_file


@dataclass(frozen=True)
class Corpus:
    """Text files in which `<|endoftext|>` follows every document."""

    name: str
    train: tuple[Path, ...]
    valid: tuple[Path, ...]

    @property
    def splits(self) -> dict[str, tuple[Path, ...]]:
        """The files by the name of their split."""
        return {"train": self.train, "valid": self.valid}

    def digest(self) -> str:
        """SHA-256, in hex, of the text of both splits, which it reads; names do not enter."""
        content = {split: list(map(sha256_file, files)) for split, files in self.splits.items()}
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()
