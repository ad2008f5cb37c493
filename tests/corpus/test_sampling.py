import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.corpus import SEPARATOR
from lmray.corpus.sampling import DocumentSample
from lmray.errors import UsageError
from tests.small import text

DOCUMENTS = text(2_000, seed=3).encode()


def test_about_the_share_of_the_documents_stays_and_in_order() -> None:
    chosen = DocumentSample(0.25, seed=0).of(DOCUMENTS)
    kept = chosen.split(SEPARATOR)
    assert 430 < len(kept) < 570
    assert DOCUMENTS.split(SEPARATOR)[-1] == b"\n"
    every = iter(DOCUMENTS.split(SEPARATOR))
    assert all(document in every for document in kept if document)


@given(st.lists(st.integers(0, 60), max_size=5), st.integers(-(2**63), 2**63 - 1))
def test_the_cuts_of_the_text_do_not_matter(cuts: list[int], seed: int) -> None:
    documents = text(60, seed=4).encode().split(SEPARATOR)
    whole = SEPARATOR.join(documents)
    parts, rest = [], documents
    for cut in sorted(cuts, reverse=True):
        parts.append(SEPARATOR.join(rest[cut:]))
        rest = [*rest[:cut], b""] if cut < len(rest) else rest
        if cut >= len(documents):
            parts[-1] = b""
    parts.append(SEPARATOR.join(rest))
    sample = DocumentSample(0.5, seed)
    assert b"".join(reversed(parts)) == whole
    assert b"".join(sample.of(part) for part in reversed(parts)) == sample.of(whole)


def test_seeds_choose_differently_and_a_share_of_one_keeps_all() -> None:
    chosen = {DocumentSample(0.5, seed).of(DOCUMENTS) for seed in range(4)}
    assert len(chosen) == 4
    assert DocumentSample(1.0, seed=0).of(DOCUMENTS) == DOCUMENTS
    assert DocumentSample(0.5, seed=0).of(b"") == b""


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="at most 1"):
        DocumentSample(share, seed=0)


def test_a_seed_that_is_too_large_is_refused() -> None:
    with pytest.raises(UsageError, match="64 bits"):
        DocumentSample(0.5, seed=1 << 63)
