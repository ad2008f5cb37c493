from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lmray.tokenizer.counts import PretokenCounts

COUNTS = st.dictionaries(st.binary(min_size=1, max_size=9), st.integers(1, 1 << 40), max_size=20)


@given(COUNTS)
def test_a_dictionary_and_arrays_say_the_same(counts: dict[bytes, int]) -> None:
    arrays = PretokenCounts.of(counts)
    assert arrays.as_counter() == counts
    assert list(arrays.as_counter()) == list(counts)
    assert len(arrays) == len(counts)
    assert arrays.occurrences == sum(counts.values())


def test_arrays_hold_the_pretokens_one_after_the_other() -> None:
    arrays = PretokenCounts.of(Counter({b"the": 3, b" end": 1}))
    assert arrays.data.tobytes() == b"the end"
    assert arrays.ends.tolist() == [3, 7]
    assert arrays.counts.tolist() == [3, 1]
    assert arrays.ends.dtype == arrays.counts.dtype == np.int64
