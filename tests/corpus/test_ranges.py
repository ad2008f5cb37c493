from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lmray.corpus import SEPARATOR, ByteRange, byte_ranges
from lmray.errors import CorruptionError, UsageError


def reference(data: bytes, target: int, separator: bytes) -> list[tuple[int, int]]:
    """The same cuts, found in the whole file at once."""
    ranges, start = [], 0
    while start < len(data):
        end = len(data)
        if len(data) - start > target:
            found = data.find(separator, max(start, start + target - len(separator)))
            end = len(data) if found < 0 else found + len(separator)
        ranges.append((start, end))
        start = end
    return ranges


parts = st.lists(st.sampled_from([b"<e>", b"<e", b"<", b">", b"a", b"\n", b"<<e>>"]), max_size=40)


@given(parts.map(b"".join), st.integers(1, 30), st.integers(1, 7))
@example(b"", 5, 1)
@example(b"no separator at all", 5, 2)
@example(b"ends with one<e>", 5, 2)
def test_equal_to_cutting_the_whole_file(data: bytes, target: int, window: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "corpus.txt")
        path.write_bytes(data)
        ranges = byte_ranges(path, target_bytes=target, separator=b"<e>", window=window)
        assert [(part.start, part.end) for part in ranges] == reference(data, target, b"<e>")
        assert b"".join(part.read() for part in ranges) == data
        assert all(part.read().endswith(b"<e>") for part in ranges[:-1])


@pytest.mark.parametrize("shift", range(len(SEPARATOR) + 2))
def test_a_separator_across_two_windows_is_found(tmp_path: Path, shift: int) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"x" * (64 + shift) + SEPARATOR + b"y" * 100)
    ranges = byte_ranges(path, target_bytes=50, window=32)
    assert ranges[0] == ByteRange(str(path), 0, 64 + shift + len(SEPARATOR))
    assert ranges[1].size == 100


def test_only_the_surroundings_of_cuts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.txt"
    with path.open("wb") as file:
        for place in range(1, 5):
            file.seek(place << 33)
            file.write(SEPARATOR)
    ranges = byte_ranges(path, target_bytes=1 << 33)
    assert len(ranges) == 4
    assert ranges[0].end == (1 << 33) + len(SEPARATOR)


def test_real_text(data_dir: Path) -> None:
    path = data_dir / "tinystories-train.txt"
    ranges = byte_ranges(path, target_bytes=1_000_000)
    assert len(ranges) == 11
    assert sum(part.read().count(SEPARATOR) for part in ranges) == 12_578
    assert sum(part.size for part in ranges) == path.stat().st_size


def test_a_wrong_request_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="target_bytes=0 is not positive"):
        byte_ranges(tmp_path / "corpus.txt", target_bytes=0)
    with pytest.raises(UsageError, match=r"cannot read .*absent\.txt \(No such file"):
        byte_ranges(tmp_path / "absent.txt", target_bytes=1)


def test_a_file_that_shrank_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"0123456789")
    (part,) = byte_ranges(path, target_bytes=100)
    path.write_bytes(b"01234")
    with pytest.raises(CorruptionError, match="ends at byte 5, but its range goes on to 10"):
        part.read()
