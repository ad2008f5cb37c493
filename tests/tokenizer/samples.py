"""A small tokenizer with real merges, and text that is hard to cut."""

from functools import cache

from hypothesis import strategies as st

from lmray.tokenizer import (
    END_OF_TEXT,
    GPT2_PATTERN,
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


@cache
def small_tokenizer() -> Tokenizer:
    counts = count_pretokens(TEXT.encode(), pattern=GPT2_PATTERN, special_tokens=[])
    merges = learn_merges(counts, vocab_size=360, special_tokens=SPECIALS)
    return Tokenizer(vocabulary(merges, SPECIALS), merges, SPECIALS)


_FRAGMENTS = [
    "there", "gather", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2003", "'", "'l", "'ll", "'re",
    "s", "1", "99", "!", "...", "é", "e\u0301", "東京", "🙂", "\ud83d", "\ude42", "\x1c", "\x85",
    "\x00", "<", "<|", "|>", "<|pause", *SPECIALS,
]  # fmt: skip

hard_text = st.lists(st.sampled_from(_FRAGMENTS) | st.text(max_size=3), max_size=30).map("".join)
"""Text made of what decides cuts: white space, contractions, special tokens, halves of them."""

hard_bytes = st.lists(
    st.binary(max_size=6) | hard_text.map(lambda text: text.encode("utf-8", "surrogatepass")),
    max_size=6,
).map(b"".join)
