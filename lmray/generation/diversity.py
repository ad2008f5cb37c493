"""How varied generated texts are, counted in n-grams of tokens."""

from collections.abc import Iterator, Sequence
from statistics import fmean

REPEATED = 4
"""Length of the n-grams whose repetition is counted, as in seq-rep-4."""


def distinct(texts: Sequence[Sequence[int]], n: int) -> float:
    """distinct-n (Li et al. 2016): different n-grams over all n-grams of all texts together.

    It falls with the number and length of the texts: compare equal amounts only. NaN where no text
    has n tokens.
    """
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def repetition(texts: Sequence[Sequence[int]], n: int = REPEATED) -> float:
    """seq-rep-n (Welleck et al. 2020): the share of a text's n-grams that were there before.

    One minus different over all of them, the mean over texts of at least n tokens; NaN where there
    is none. A text that goes round in circles approaches 1.
    """
    shares = [1 - distinct([text], n) for text in texts if len(text) >= n]
    return fmean(shares) if shares else float("nan")


def _ngrams(text: Sequence[int], n: int) -> Iterator[tuple[int, ...]]:
    return zip(*(text[start:] for start in range(n)), strict=False)
