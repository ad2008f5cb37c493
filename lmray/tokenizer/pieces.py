"""From one piece of text to its token ids, with a bounded memory of the pieces met lately."""

import copy

from lmray.errors import UsageError
from lmray.tokenizer.encoder import Encoder
from lmray.tokenizer.merging import MergeTable, merge
from lmray.tokenizer.text import to_bytes


class PieceIds(dict[str, tuple[int, ...]]):
    """The ids of each special token or pre-token, worked out when first asked for.

    A cache, not a record: it holds the short pieces met lately and never more than `MOST`.
    """

    MOST = 1 << 15
    LONGEST = 64

    def __init__(
        self,
        ids: dict[bytes, int],
        merges: list[tuple[bytes, bytes]],
        special_ids: dict[str, int],
    ) -> None:
        """`ids` is the vocabulary by token bytes; UsageError if it lacks a part of a merge."""
        super().__init__()
        self._byte_ids = {data[0]: token for data, token in ids.items() if len(data) == 1}
        self._merges = _merge_table(merges, ids)
        self.special_ids = special_ids

    def __missing__(self, piece: str) -> tuple[int, ...]:
        """Called by a look-up that finds nothing."""
        ids = self._encode(piece)
        if len(piece) <= self.LONGEST:
            # Starting afresh when full is enough: frequent pieces are back within a page of text.
            if len(self) >= self.MOST:
                self.clear()
            self[piece] = ids
        return ids

    def with_specials(self, special_ids: dict[str, int]) -> "PieceIds":
        """The same, without its memory, for other special tokens."""
        other = copy.copy(self)
        other.clear()
        other.special_ids = special_ids
        return other

    def encoder(self, pattern: str, dtype: str) -> Encoder:
        """The same with kernels, for whole texts."""
        return Encoder(self._byte_ids, self._merges, self.special_ids, pattern=pattern, dtype=dtype)

    def _encode(self, piece: str) -> tuple[int, ...]:
        if piece in self.special_ids:
            return (self.special_ids[piece],)
        try:
            ids = [self._byte_ids[byte] for byte in to_bytes(piece)]
        except KeyError as error:
            raise UsageError(
                f"byte {bytes(error.args)!r} of {piece[: self.LONGEST]!r} is not in the "
                f"vocabulary; use one with all 256 single bytes"
            ) from None
        return tuple(merge(ids, self._merges))


def _merge_table(merges: list[tuple[bytes, bytes]], ids: dict[bytes, int]) -> MergeTable:
    table: dict[tuple[int, int], tuple[int, int]] = {}
    for rank, (left, right) in enumerate(merges):
        for part in (left, right, left + right):
            if part not in ids:
                raise UsageError(
                    f"merge {rank}, {left!r} + {right!r}, needs {part!r}, which is not in the "
                    f"vocabulary; use the vocabulary and merges of one tokenizer"
                )
        table.setdefault((ids[left], ids[right]), (rank, ids[left + right]))
    return table
