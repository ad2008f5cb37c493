"""A small tokenizer with real merges, and text that is hard to cut."""

import unicodedata
from functools import cache
from itertools import product

from hypothesis import strategies as st

from lmray.tokenizer import (
    END_OF_TEXT,
    GPT2_PATTERN,
    GPT4_PATTERN,
    NANOCHAT_PATTERN,
    Tokenizer,
    count_pretokens,
    learn_merges,
    vocabulary,
)

TEXT = (
    "The quick brown fox's den: they'll see that we've been there, and there, and there.\n\n"
    "In 1999 the other fathers gathered; 20,000 of them!  It's naïve, isn't it?\n"
    "\tdef gather(there):\n        return there + there\n東京 東京 🙂🙂\n"
) * 3
PAUSE = "<|pause|>"
PAUSE_TWICE = "<|pause|><|pause|>"
SPECIALS = [END_OF_TEXT, PAUSE, PAUSE_TWICE]

patterns = st.sampled_from([GPT2_PATTERN, GPT4_PATTERN, NANOCHAT_PATTERN])


@cache
def small_tokenizer(pattern: str = GPT2_PATTERN) -> Tokenizer:
    counts = count_pretokens(TEXT.encode(), pattern=pattern, special_tokens=[])
    merges = learn_merges(counts, vocab_size=360, special_tokens=SPECIALS)
    return Tokenizer(vocabulary(merges, SPECIALS), merges, SPECIALS, pattern=pattern)


SHORT = "<a>"


@cache
def pairing_tokenizer(pattern: str) -> Tokenizer:
    """Any two of some bytes make a token: where a text is cut shows in its ids."""
    some = [bytes([byte]) for byte in b"aSsl'1! \t\r\n\xe3\x80<>"]
    merges = list(product(some, repeat=2))
    specials = [END_OF_TEXT, SHORT]
    return Tokenizer(vocabulary(merges, specials), merges, specials, pattern=pattern)


_FRAGMENTS = [
    "there", "gather", " ", "  ", "\n", "\r\n", "\r", "\t", "\u00a0", "\u2003", "'", "'l", "'ll",
    "'re", "'LL", "'Ve", "'S", "'\u017f", "s", "S", "1", "99", "1234567", "\u0663\u0664", "Ⅷ²",
    "!", "...", "!\n", "é", "e\u0301", "東京", "🙂", "\ud83d", "\ude42", "\x1c", "\x85", "\u212a",
    "\x00", "<", "<|", "|>", "<|pause", *SPECIALS,
]  # fmt: skip

hard_text = st.lists(st.sampled_from(_FRAGMENTS) | st.text(max_size=3), max_size=30).map("".join)
"""Text made of what decides cuts: white space, contractions, special tokens, halves of them."""

hard_bytes = st.lists(
    st.binary(max_size=6) | hard_text.map(lambda text: text.encode("utf-8", "surrogatepass")),
    max_size=6,
).map(b"".join)

runs = st.tuples(st.sampled_from("a'  \n\r\u00a0\u30009!é東\u0301"), st.integers(1, 80)).map(
    lambda run: run[0] * run[1]
)
"""One character many times, across the widths that kernels take at once."""

any_bytes = st.lists(
    hard_bytes | runs.map(str.encode) | st.text(max_size=5).map(str.encode), max_size=8
).map(b"".join)
"""Everything at once: invalid bytes, special tokens, white space, contractions, long runs."""

plain_bytes = st.text("asSltLEvm '''   \t\n\r\n!.12", max_size=200).map(str.encode)
"""ASCII, a few times as long as what kernels take at once, with much to decide."""


pairing_bytes = st.lists(
    st.text("a \n", max_size=12) | st.text("aSsl'1! \t\r\n\u3000", max_size=70) | runs
    | st.sampled_from([END_OF_TEXT, SHORT, "<", "<a"]),
    max_size=8,
).map("".join).map(str.encode)  # fmt: skip
"""What `pairing_tokenizer` knows, with special tokens and ends of lines among other white space."""


def assigned(text: str) -> str:
    """`text` less the characters that Python's Unicode lacks.

    The newest letters are letters to `regex`, and not yet to the older tables of tiktoken.
    """
    return "".join(char for char in text if unicodedata.category(char) != "Cn")


small_documents = st.lists(st.text("abs't1!é  \n", max_size=12), max_size=60).map(" ".join)
"""Many pre-tokens over few characters, some of them often."""
