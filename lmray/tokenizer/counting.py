"""Counting pre-tokens: all that learning merges needs to know of a corpus."""

from collections import Counter
from collections.abc import Sequence

from lmray.tokenizer.pattern import Pretokenizer
from lmray.tokenizer.text import to_bytes, to_text


def count_pretokens(data: bytes, *, pattern: str, special_tokens: Sequence[str]) -> Counter[bytes]:
    """How often each pre-token occurs in `data`, special tokens left out.

    The counts of parts add up to those of the whole where each cut is a special token's end.
    """
    pieces = Counter(Pretokenizer(pattern, special_tokens).cut(to_text(data)))
    for token in special_tokens:
        del pieces[token]
    return Counter({to_bytes(piece): count for piece, count in pieces.items()})
