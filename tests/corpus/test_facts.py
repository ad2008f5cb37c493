from pathlib import Path

import pytest

from lmray.corpus import Facts, stat
from lmray.errors import PreflightError


def test_facts_of_known_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one<|endoftext|>\nabcde<|endoftext|>\xff\xc3\n\xc3\xa9<|endoftext|>\n")
    assert stat([path]) == Facts(
        bytes=54, documents=3, median_bytes=5, longest_bytes=5, invalid_utf8_share=2 / 54
    )


def test_files_add_up_and_emptiness_is_refused(tmp_path: Path) -> None:
    path, empty = tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_bytes(b"one<|endoftext|>two")
    empty.write_bytes(b"")
    assert stat([path, empty, path]).documents == 4
    with pytest.raises(PreflightError, match=r"no document in .*b\.txt"):
        stat([empty])


@pytest.mark.parametrize(
    ("name", "documents", "size"),
    [("tinystories-train.txt", 12_578, 10_469_430), ("webtext-valid.txt", 247, 936_584)],
)
def test_real_text(data_dir: Path, name: str, documents: int, size: int) -> None:
    facts = stat([data_dir / name])
    assert (facts.documents, facts.bytes, facts.invalid_utf8_share) == (documents, size, 0)
