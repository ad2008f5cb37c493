"""Distinct n-grams and repetition, by hand and against string counting."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.generation import distinct, repetition

texts = st.lists(st.lists(st.integers(0, 4), max_size=20), max_size=5)


def test_distinct_by_hand():
    assert distinct([[1, 2, 1, 2]], 1) == 2 / 4
    assert distinct([[1, 2, 1, 2]], 2) == 2 / 3  # 12 21 12
    assert distinct([[1, 2, 1, 2]], 3) == 1.0
    assert distinct([[1, 2], [1, 2]], 2) == 1 / 2  # texts count together
    assert distinct([[1, 2], [3, 4]], 2) == 1.0  # and 2 3 is in neither


def test_repetition_by_hand():
    assert repetition([[1, 2, 3, 4, 5, 6]]) == 0.0
    assert repetition([[1] * 13]) == 1 - 1 / 10
    assert repetition([[1] * 13, list(range(13))]) == pytest.approx(0.45)  # the mean over texts
    assert repetition([[1, 2, 3, 4], [1, 2, 3, 4]]) == 0.0  # within a text alone
    assert repetition([[1] * 13, [1, 2, 3]]) == 1 - 1 / 10  # too short to tell


@given(texts, st.integers(1, 4))
def test_distinct_is_what_counting_substrings_says(texts, n):
    seen, total = set(), 0
    for text in texts:
        spelled = "".join(map(str, text))
        for start in range(max(0, len(spelled) - n + 1)):
            seen.add(spelled[start : start + n])
            total += 1
    if not total:
        assert math.isnan(distinct(texts, n))
    else:
        assert distinct(texts, n) == len(seen) / total
        assert 0 <= repetition(texts, n) < 1


@pytest.mark.parametrize("short", [[], [[]], [[1, 2, 3]]], ids=str)
def test_nothing_is_known_of_texts_that_are_too_short(short):
    assert math.isnan(repetition(short))
    assert math.isnan(distinct(short, 4))
