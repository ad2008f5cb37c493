"""The Tokenizer: text to token ids and back."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from lmray.errors import UsageError
from lmray.storage import canonical_json
from lmray.tokenizer import gpt2_files, native
from lmray.tokenizer.encoder import Encoder, NoSuchByteError
from lmray.tokenizer.pattern import END_OF_TEXT, GPT2_PATTERN, Pretokenizer, in_buffers
from lmray.tokenizer.pieces import PieceIds
from lmray.tokenizer.text import to_text, well_formed, well_formed_chunks

_Result = TypeVar("_Result")


class Tokenizer:
    """Byte-level BPE; encoding then decoding gives the same bytes back, whatever they are.

    `merges` are in the order they were learnt. A special token that `vocab` lacks gets the id after
    the greatest. Tokenizers with equal fingerprints encode equally.
    """

    def __init__(
        self,
        vocab: dict[int, bytes],
        merges: list[tuple[bytes, bytes]],
        special_tokens: list[str] | None = None,
        *,
        pattern: str = GPT2_PATTERN,
    ) -> None:
        """Raises UsageError if vocabulary, merges and special tokens do not fit together."""
        self.pattern = pattern
        self.special_tokens = list(special_tokens or ())
        self._pretokenizer = Pretokenizer(pattern, self.special_tokens)
        self.vocab = _with_special_tokens(vocab, self.special_tokens)
        self.merges = list(merges)
        ids = _ids_by_bytes(self.vocab)
        self._special_ids = {token: ids[token.encode()] for token in self.special_tokens}
        self._piece_ids = PieceIds(ids, self.merges, self._special_ids)
        self._encoder: Encoder | None = None

    @classmethod
    def from_files(
        cls,
        vocab_filepath: Path | str,
        merges_filepath: Path | str,
        special_tokens: list[str] | None = None,
    ) -> "Tokenizer":
        """Reads GPT-2's vocab.json and merges.txt."""
        vocab = gpt2_files.read_vocab(vocab_filepath, special_tokens=special_tokens or ())
        return cls(vocab, gpt2_files.read_merges(merges_filepath), special_tokens)

    def __reduce__(self) -> tuple[object, ...]:
        """Travels to other processes without its cache."""
        return _rebuild, (self.vocab, self.merges, self.special_tokens, self.pattern)

    @property
    def vocab_size(self) -> int:
        """One more than the greatest id: the rows an embedding needs."""
        return max(self.vocab) + 1

    @property
    def id_dtype(self) -> Literal["uint16", "uint32"]:
        """The smallest of the two types that holds every id."""
        return "uint16" if self.vocab_size <= 1 << 16 else "uint32"

    @property
    def special_ids(self) -> dict[str, int]:
        """The ids of the special tokens."""
        return dict(self._special_ids)

    @property
    def end_of_text(self) -> int:
        """The id of `<|endoftext|>`.

        Raises UsageError if that is no special token here.
        """
        if END_OF_TEXT not in self._special_ids:
            raise UsageError(
                f"this tokenizer has no special token {END_OF_TEXT!r} (it has "
                f"{self.special_tokens}); pass special_tokens=[{END_OF_TEXT!r}]"
            )
        return self._special_ids[END_OF_TEXT]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of all that decides which ids a text gets."""
        content = {
            "pattern": self.pattern,
            "special_tokens": self._special_ids,
            "merges": [[left.hex(), right.hex()] for left, right in self.merges],
            "vocab": {str(token): data.hex() for token, data in self.vocab.items()},
        }
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The token ids of `text`, special tokens included; a lone surrogate reads as U+FFFD."""
        text = well_formed(text)
        encoder = self._native(len(text))
        if encoder is None:
            return self._encode(text)
        return self._run(encoder.encode, text.encode()).tolist()

    def encode_bytes(self, data: bytes) -> list[int]:
        """The token ids of bytes that need not be valid UTF-8; `decode_bytes` gives them back."""
        encoder = self._native(len(data))
        if encoder is None:
            return self._encode(to_text(data))
        return self._run(encoder.encode, data).tolist()

    def encode_to_numpy(self, data: bytes | str) -> np.ndarray:
        """`encode_bytes` or `encode` into an array of `id_dtype`, without a list between."""
        if isinstance(data, str):
            data = well_formed(data).encode()
        encoder = self._native(len(data))
        if encoder is None:
            return np.array(self._encode(to_text(data)), dtype=self.id_dtype)
        return self._run(encoder.encode, data)

    def encode_iterable(self, iterable: Iterable[str]) -> Iterator[int]:
        """The token ids of the strings' concatenation, one by one, holding little of it at a time.

        Equal to encoding it whole, for the patterns that `Pretokenizer.cut_settled` names.
        """
        yield from chain.from_iterable(
            in_buffers(well_formed_chunks(iterable), self._encode_settled)
        )

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are not valid UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`.

        Raises UsageError for an id outside the vocabulary.
        """
        try:
            return b"".join(map(self.vocab.__getitem__, ids))
        except KeyError as error:
            raise UsageError(
                f"token id {error.args[0]} is not in this tokenizer's vocabulary of "
                f"{len(self.vocab):,} tokens; decode with the tokenizer that encoded the text"
            ) from None

    def token_bytes(self) -> np.ndarray:
        """Length in bytes of each id's token, int32, as text length for bits per byte.

        A special token counts its text, which stands in the file; an id without a token counts 0.
        """
        lengths = np.zeros(self.vocab_size, dtype=np.int32)
        for token, data in self.vocab.items():
            lengths[token] = len(data)
        return lengths

    def _native(self, num_bytes: int) -> Encoder | None:
        """The kernels' encoder, once there is enough text to load it for and if there can be one.

        What is left is `_encode`, for any pattern, which the kernels are held against.
        """
        if not native.worth_it(self.pattern, num_bytes):
            return None
        if self._encoder is None and Encoder.can_hold(self.vocab_size, len(self.merges)):
            self._encoder = self._piece_ids.encoder(self.pattern, self.id_dtype)
        return self._encoder

    def _encode_settled(self, text: str, last: bool) -> tuple[list[int], str]:
        """The ids that are the same whatever follows, or all, and the rest of `text`."""
        if last:
            return self.encode(text), ""
        encoder = self._native(len(text))
        if encoder is None:
            pieces, rest = self._pretokenizer.cut_settled(text)
            return self._ids_of(pieces), rest
        data = text.encode()
        ids, end = self._run(encoder.encode_settled, data)
        return ids.tolist(), data[end:].decode()

    def _run(self, encode: Callable[[bytes], _Result], data: bytes) -> _Result:
        """Calls a method of the encoder, and says what is wrong where that only finds it."""
        try:
            return encode(data)
        except NoSuchByteError as error:
            (piece,) = error.args
            self._piece_ids[to_text(piece)]
            raise

    def _encode(self, text: str) -> list[int]:
        return self._ids_of(self._pretokenizer.cut(text))

    def _ids_of(self, pieces: list[str]) -> list[int]:
        return list(chain.from_iterable(map(self._piece_ids.__getitem__, pieces)))


def _rebuild(
    vocab: dict[int, bytes],
    merges: list[tuple[bytes, bytes]],
    special_tokens: list[str],
    pattern: str,
) -> Tokenizer:
    return Tokenizer(vocab, merges, special_tokens, pattern=pattern)


def _with_special_tokens(
    vocab: dict[int, bytes], special_tokens: Sequence[str]
) -> dict[int, bytes]:
    complete = dict(vocab)
    known = set(complete.values())
    for token in special_tokens:
        if token.encode() not in known:
            complete[max(complete, default=-1) + 1] = token.encode()
    return complete


def _ids_by_bytes(vocab: dict[int, bytes]) -> dict[bytes, int]:
    ids: dict[bytes, int] = {}
    for token, data in vocab.items():
        if data in ids:
            raise UsageError(f"ids {ids[data]} and {token} of the vocabulary are both {data!r}")
        ids[data] = token
    return ids
