"""A share of a corpus' documents, the same whoever reads them and however the text is cut."""

import hashlib
from dataclasses import dataclass

from lmray.corpus.ranges import SEPARATOR
from lmray.errors import UsageError

_HASHES = 1 << 64


@dataclass(frozen=True)
class DocumentSample:
    """Documents chosen by a hash of their text and a seed: about `share` of them.

    Documents with the same text stay or go together.
    """

    share: float
    """Of all documents, above 0; at 1 all stay."""
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"sample share {self.share} is not above 0 and at most 1")
        if not -_HASHES // 2 <= self.seed < _HASHES // 2:
            raise UsageError(f"seed {self.seed} does not fit into 64 bits; choose a smaller one")

    def of(self, text: bytes) -> bytes:
        """The chosen documents of `text`, which begins and ends with whole documents."""
        if self.share == 1:
            return text
        *ended, last = text.split(SEPARATOR)
        chosen = b"".join(part + SEPARATOR for part in ended if self._has(part))
        return chosen + last if last and self._has(last) else chosen

    def _has(self, document: bytes) -> bool:
        key = self.seed.to_bytes(8, "little", signed=True)
        digest = hashlib.blake2b(document, digest_size=8, key=key).digest()
        return int.from_bytes(digest, "little") < self.share * _HASHES
