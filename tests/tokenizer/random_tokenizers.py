"""Tokenizers of random merges, ids and special tokens, and text that meets them."""

from random import Random

from hypothesis import strategies as st

from lmray.errors import PreflightError
from lmray.tokenizer import (
    END_OF_TEXT,
    GPT2_PATTERN,
    Tokenizer,
    count_pretokens,
    learn_merges,
    vocabulary,
)

_SPECIALS = [END_OF_TEXT, "<|pause|>", "<|pause|><|pause|>", "<é x>", "東", "zz", "ab"]
_UNITS = ["a", "b", "ab", "aab", "ba", "c", " ", "  ", "\n", "é", "zz", "1", "'s", "\x00"]

Merges = list[tuple[bytes, bytes]]


def text_of(draw: Random, length: int = 60) -> str:
    """Text in which merges and special tokens meet."""
    return "".join(draw.choices(_UNITS + _SPECIALS, k=draw.randrange(length)))


def learnt_merges(draw: Random) -> Merges:
    """Merges that training gives: each token is what its own bytes merge to."""
    text = "".join(draw.choices(_UNITS, k=60))
    counts = count_pretokens(text.encode(), pattern=GPT2_PATTERN, special_tokens=[])
    wanted = draw.randrange(30)
    while True:
        try:
            return learn_merges(counts, vocab_size=256 + wanted, special_tokens=[])
        except PreflightError:
            wanted //= 2


def made_up_merges(draw: Random) -> Merges:
    """Merges of any two tokens; text may never meet some."""
    tokens = [b"a", b"b", b"c", b" ", "é".encode()[:1], "é".encode()[1:]]
    merges = []
    for _ in range(draw.randrange(20)):
        left, right = draw.choice(tokens), draw.choice(tokens)
        if left + right not in tokens:
            merges.append((left, right))
            tokens.append(left + right)
    return merges


def in_merge_order(draw: Random, merges: Merges, specials: list[str]) -> Tokenizer:
    """Bytes in any order, merges in theirs, with or without gaps; special tokens anywhere."""
    tokens = list(vocabulary(merges, []).values())
    single, made = tokens[:256], tokens[256:]
    draw.shuffle(single)
    bare = [token.encode() for token in specials if token.encode() not in tokens]
    ids = list(range(len(tokens) + len(bare)))
    if draw.random() < 0.5:
        ids = sorted(draw.sample(range(2 * len(ids)), len(ids)))
    special_places = set(draw.sample(range(len(ids)), len(bare)))
    ordinary, special = iter(single + made), iter(bare)
    vocab = {
        token: next(special if place in special_places else ordinary)
        for place, token in enumerate(ids)
    }
    return Tokenizer(vocab, merges, specials)


def in_any_order(draw: Random, merges: Merges, specials: list[str]) -> Tokenizer:
    """Any id for any token."""
    ordered = in_merge_order(draw, merges, specials)
    ids = list(ordered.vocab)
    draw.shuffle(ids)
    return Tokenizer(dict(zip(ids, ordered.vocab.values(), strict=True)), merges, specials)


def some_specials(draw: Random) -> list[str]:
    return draw.sample(_SPECIALS, draw.randrange(len(_SPECIALS)))


seeds = st.integers(0, 2**48).map(Random)
"""A random number generator of a drawn seed: shuffles are cheaper there than in hypothesis."""
