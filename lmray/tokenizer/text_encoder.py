"""Text to token ids with one choice of special tokens: by kernels, or by `regex` and Python.

The kernels' encoder exists for some patterns and once there is enough text to load it for; what it
gives is held against `encode_by_regex`, which any pattern has.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TypeVar

import numpy as np

from lmray.tokenizer import native
from lmray.tokenizer.encoder import Encoder, NoSuchByteError
from lmray.tokenizer.pattern import Pretokenizer
from lmray.tokenizer.pieces import PieceIds
from lmray.tokenizer.text import to_text

_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


class TextEncoder:
    """Encodes well-formed text, and bytes; threads may share it."""

    def __init__(
        self,
        pretokenizer: Pretokenizer,
        piece_ids: PieceIds,
        *,
        num_ids: int,
        num_merges: int,
        dtype: str,
    ) -> None:
        """`dtype` is that of arrays of ids."""
        self.pretokenizer = pretokenizer
        self.piece_ids = piece_ids
        self._sizes = num_ids, num_merges
        self.dtype = dtype
        self._for_all = self
        self._encoder: Encoder | None = None

    def with_specials(self, special_ids: Mapping[str, int]) -> "TextEncoder":
        """The same for a part of the special tokens; what is large is shared."""
        other = copy.copy(self)
        other.pretokenizer = Pretokenizer(self.pretokenizer.pattern, list(special_ids))
        other.piece_ids = self.piece_ids.with_specials(dict(special_ids))
        other._encoder = None
        return other

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        encoder = self.native(len(text))
        if encoder is None:
            return self.encode_by_regex(text)
        return self._run(encoder.encode, text.encode()).tolist()

    def encode_to_numpy(self, data: bytes) -> np.ndarray:
        """The ids of bytes that need not be UTF-8."""
        encoder = self.native(len(data))
        if encoder is None:
            return np.array(self.encode_by_regex(to_text(data)), dtype=self.dtype)
        return self._run(encoder.encode, data)

    def encode_texts(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each of several texts."""
        encoder = self.native(sum(map(len, texts)))
        if encoder is None:
            return [np.array(self.encode_by_regex(text), dtype=self.dtype) for text in texts]
        return self._run(encoder.encode_texts, [text.encode() for text in texts])

    def encode_settled(self, text: str, last: bool) -> tuple[list[int], str]:
        """The ids that are the same whatever follows, or all, and the rest of `text`."""
        if last:
            return self.encode(text), ""
        encoder = self.native(len(text))
        if encoder is None:
            pieces, rest = self.pretokenizer.cut_settled(text)
            return self._ids_of(pieces), rest
        data = text.encode()
        ids, end = self._run(encoder.encode_settled, data)
        return ids.tolist(), data[end:].decode()

    def encode_by_regex(self, text: str) -> list[int]:
        """`encode` for any pattern, and what the kernels are held against."""
        return self._ids_of(self.pretokenizer.cut(text))

    def native(self, num_bytes: int) -> Encoder | None:
        """The kernels' encoder for that much more text, if there can be one and it is worth it."""
        if not native.worth_it(self.pretokenizer.pattern, num_bytes):
            return None
        if self._encoder is None and Encoder.can_hold(*self._sizes):
            if self is self._for_all:
                self._encoder = self.piece_ids.encoder(self.pretokenizer.pattern, self.dtype)
            elif (shared := self._for_all.native(0)) is not None:
                self._encoder = shared.with_specials(self.piece_ids.special_ids)
        return self._encoder

    def _run(self, encode: Callable[[_Given], _Result], given: _Given) -> _Result:
        """Calls a method of the encoder, and says what is wrong where that only finds it."""
        try:
            return encode(given)
        except NoSuchByteError as error:
            (piece,) = error.args
            self.piece_ids[to_text(piece)]
            raise

    def _ids_of(self, pieces: list[str]) -> list[int]:
        return list(chain.from_iterable(map(self.piece_ids.__getitem__, pieces)))
