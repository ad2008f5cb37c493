"""The Tokenizer: text to token ids and back."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from lmray.errors import UsageError
from lmray.storage import canonical_json
from lmray.threads import Threads
from lmray.tokenizer import gpt2_files
from lmray.tokenizer.decoding import decode_bytes, decode_pieces
from lmray.tokenizer.pattern import END_OF_TEXT, GPT2_PATTERN, Pretokenizer, in_buffers
from lmray.tokenizer.pieces import PieceIds
from lmray.tokenizer.special_policy import Specials, refuse, refuse_in, resolve
from lmray.tokenizer.text import well_formed, well_formed_chunks
from lmray.tokenizer.text_encoder import TextEncoder
from lmray.tokenizer.threaded import encode_data, encode_file, encode_texts


class Tokenizer:
    """Byte-level BPE; encoding then decoding gives the same bytes back, whatever they are.

    `merges` are in the order they were learnt. A special token that `vocab` lacks gets the id after
    the greatest. Tokenizers with equal fingerprints encode equally.

    All that encodes takes tiktoken's two arguments. A special token in `allowed_special` is its id:
    unlike tiktoken's, all are unless said otherwise, as corpora hold them. Text with one in
    `disallowed_special` is refused with a UsageError; any other is encoded as ordinary text.
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
        pretokenizer = Pretokenizer(pattern, self.special_tokens)
        self.vocab = _with_special_tokens(vocab, self.special_tokens)
        self.merges = list(merges)
        ids = _ids_by_bytes(self.vocab)
        self._special_ids = {token: ids[token.encode()] for token in self.special_tokens}
        self._encoder = TextEncoder(
            pretokenizer,
            PieceIds(ids, self.merges, self._special_ids),
            num_ids=self.vocab_size,
            num_merges=len(self.merges),
            dtype=self.id_dtype,
        )
        self._encoders = {frozenset(self.special_tokens): self._encoder}

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

    def encode(
        self, text: str, *, allowed_special: Specials = "all", disallowed_special: Specials = ()
    ) -> list[int]:
        """The token ids of `text`; a lone surrogate reads as U+FFFD."""
        encoder, disallowed = self._chosen(allowed_special, disallowed_special)
        refuse(text, disallowed)
        return encoder.encode(well_formed(text))

    def encode_ordinary(self, text: str) -> list[int]:
        """The token ids of `text` as if there were no special tokens."""
        return self.encode(text, allowed_special=())

    def encode_bytes(self, data: bytes) -> list[int]:
        """The token ids of bytes that need not be valid UTF-8; `decode_bytes` gives them back."""
        return self._encoder.encode_to_numpy(data).tolist()

    def encode_to_numpy(
        self,
        data: bytes | str,
        *,
        allowed_special: Specials = "all",
        disallowed_special: Specials = (),
        num_threads: Threads = 1,
    ) -> np.ndarray:
        """The same as one array of `id_dtype`, whatever the number of threads.

        Memory: twice the ids; with several threads once, and some 20 MB for each.
        """
        encoder, disallowed = self._chosen(allowed_special, disallowed_special)
        refuse(data, disallowed)
        given = well_formed(data).encode() if isinstance(data, str) else data
        return encode_data(encoder, given, self.special_tokens, num_threads)

    def encode_batch(
        self,
        texts: Iterable[str],
        *,
        allowed_special: Specials = "all",
        disallowed_special: Specials = (),
        num_threads: Threads = "all",
    ) -> list[np.ndarray]:
        """An array of `id_dtype` for each text, in order; `.tolist()` of one is tiktoken's answer.

        Arrays, as making Python integers takes longer than encoding does, and one thread at a time.
        Memory: texts, ids and some 20 MB a thread. Patterns without kernels have one thread.
        """
        encoder, disallowed = self._chosen(allowed_special, disallowed_special)
        held = list(texts)
        if disallowed:
            for number, text in enumerate(held):
                refuse(text, disallowed, name=f"text {number} of the batch")
        return encode_texts(encoder, list(map(well_formed, held)), num_threads)

    def encode_file(
        self,
        path: Path | str,
        *,
        allowed_special: Specials = "all",
        disallowed_special: Specials = (),
        num_threads: Threads = "all",
    ) -> np.ndarray:
        """The token ids of a file's bytes as one array of `id_dtype`.

        Memory: the ids, and some 20 MB a thread; the text is read a megabyte at a time. Patterns
        without kernels have one thread and all the text in memory.
        """
        encoder, disallowed = self._chosen(allowed_special, disallowed_special)
        return encode_file(encoder, path, self.special_tokens, disallowed, num_threads)

    def encode_iterable(
        self,
        iterable: Iterable[str],
        *,
        allowed_special: Specials = "all",
        disallowed_special: Specials = (),
    ) -> Iterator[int]:
        """The token ids of the strings' concatenation, one by one, holding little of it at a time.

        Equal to encoding it whole, for the patterns that `Pretokenizer.cut_settled` names. Text is
        refused when its disallowed token is complete, with ids given for what came long before.
        """
        encoder, disallowed = self._chosen(allowed_special, disallowed_special)
        chunks = well_formed_chunks(refuse_in(iterable, disallowed))
        yield from chain.from_iterable(in_buffers(chunks, encoder.encode_settled))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are not valid UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`.

        Raises UsageError for an id outside the vocabulary.
        """
        return decode_bytes(ids, self.vocab)

    def decode_iterable(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of `ids` in pieces, which joined are `decode` of all; none splits a character.

        Raises UsageError for an id outside the vocabulary, when it comes.
        """
        return decode_pieces(ids, self.vocab)

    def token_bytes(self) -> np.ndarray:
        """Length in bytes of each id's token, int32, as text length for bits per byte.

        A special token counts its text, which stands in the file; an id without a token counts 0.
        """
        lengths = np.zeros(self.vocab_size, dtype=np.int32)
        for token, data in self.vocab.items():
            lengths[token] = len(data)
        return lengths

    def _chosen(
        self, allowed: Specials, disallowed: Specials
    ) -> tuple[TextEncoder, frozenset[str]]:
        """The encoder that knows the allowed special tokens, and the disallowed ones."""
        taken, refused = resolve(self.special_tokens, allowed, disallowed)
        if taken not in self._encoders:
            some = {token: n for token, n in self._special_ids.items() if token in taken}
            self._encoders[taken] = self._encoder.with_specials(some)
        return self._encoders[taken], refused


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
