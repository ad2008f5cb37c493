"""Token ids back to text: whole, or as they come without ever splitting a character."""

import codecs
from collections.abc import Iterable, Iterator, Mapping

from lmray.errors import UsageError


def decode_bytes(ids: Iterable[int], vocab: Mapping[int, bytes]) -> bytes:
    """The bytes of `ids`; UsageError for one that `vocab` lacks."""
    try:
        return b"".join(map(vocab.__getitem__, ids))
    except KeyError as error:
        raise _unknown(error, vocab) from None


def decode_pieces(ids: Iterable[int], vocab: Mapping[int, bytes]) -> Iterator[str]:
    """The text of `ids` in pieces of whole characters, each as soon as its last byte is there.

    What is not valid UTF-8 becomes U+FFFD as in decoding it whole. A piece is never empty.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    try:
        for token in map(vocab.__getitem__, ids):
            if text := decoder.decode(token):
                yield text
    except KeyError as error:
        raise _unknown(error, vocab) from None
    if text := decoder.decode(b"", final=True):
        yield text


def _unknown(error: KeyError, vocab: Mapping[int, bytes]) -> UsageError:
    return UsageError(
        f"token id {error.args[0]} is not in this tokenizer's vocabulary of {len(vocab):,} tokens; "
        f"decode with the tokenizer that encoded the text"
    )
