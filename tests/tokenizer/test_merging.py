import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.tokenizer.merging import MergeTable, _merge_long, _merge_short, merge, replace_pair

LETTERS = 3


@st.composite
def tables(draw: st.DrawFn) -> MergeTable:
    """Merges as training makes them: each joins two tokens that exist by then, no pair twice."""
    table: dict[tuple[int, int], tuple[int, int]] = {}
    for rank in range(draw(st.integers(0, 12))):
        token = st.integers(0, LETTERS + rank - 1)
        table.setdefault((draw(token), draw(token)), (rank, LETTERS + rank))
    return table


@given(tables(), st.lists(st.integers(0, LETTERS - 1), max_size=60))
def test_both_ways_apply_the_merges_in_order(table: MergeTable, ids: list[int]) -> None:
    expected = ids
    for pair, (_rank, merged) in sorted(table.items(), key=lambda item: item[1]):
        expected = replace_pair(expected, pair, merged)
    assert _merge_short(ids, table) == expected
    assert _merge_long(ids, table) == expected


def test_replace_pair_goes_from_the_left_without_overlap() -> None:
    assert replace_pair([7, 7, 7, 1, 7, 7], (7, 7), 9) == [9, 7, 1, 9]


@pytest.mark.parametrize("period", [1, 2, 3])
def test_a_long_run_is_not_quadratic(period: int) -> None:
    table = {(0, 0): (0, 3), (3, 3): (1, 4), (0, 1): (2, 5), (5, 2): (3, 6), (5, 5): (4, 7)}
    started = time.process_time()
    merge([place % period for place in range(100_000)], table)
    assert time.process_time() - started < 5
