from pathlib import Path

import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.errors import CorruptionError
from lmray.tokenizer import counts_file
from lmray.tokenizer.counts import PretokenCounts

FACTS = {"read_bytes": 7, "read_seconds": 0.25}


@given(st.dictionaries(st.binary(min_size=1, max_size=40), st.integers(1, 1 << 60), max_size=20))
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, counts) -> None:
    path = tmp_path_factory.mktemp("counts") / "counts.parquet"
    counts_file.save(path, PretokenCounts.of(counts), FACTS)
    loaded, facts = counts_file.load(path)
    assert loaded.as_counter() == counts
    assert facts == FACTS


def test_any_tool_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "counts.parquet"
    counts_file.save(path, PretokenCounts.of({b" the": 12, b"\xff": 1}), FACTS)
    rows = pyarrow.parquet.read_table(path).to_pylist()
    assert rows == [{"pretoken": b" the", "count": 12}, {"pretoken": b"\xff", "count": 1}]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "counts.parquet"
    counts = {bytes([a, b]): a + b + 1 for a in range(60) for b in range(60)}
    counts_file.save(path, PretokenCounts.of(counts), FACTS)
    whole = path.read_bytes()
    for place in (40, len(whole) // 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CorruptionError, match=r"counts.parquet is damaged.*delete it"):
            counts_file.load(path)
    path.write_bytes(whole[:-20])
    with pytest.raises(CorruptionError, match="is damaged"):
        counts_file.load(path)
