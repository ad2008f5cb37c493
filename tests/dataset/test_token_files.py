from pathlib import Path

import numpy as np
import pytest

from lmray.dataset.token_files import LLMC_UINT16, LLMC_UINT32, detect, open_ids
from lmray.errors import CorruptionError, UsageError

IDS = [1, 2, 65_535, 7] * 300
RAW = np.array(IDS, dtype="<u2").tobytes()
LARGE = np.array(IDS, dtype="<u4").tobytes()


def header(*numbers: int) -> bytes:
    whole = np.zeros(256, dtype="<i4")
    whole[: len(numbers)] = numbers
    return whole.tobytes()


def npy(array: np.ndarray, path: Path) -> bytes:
    np.save(path, array)
    return path.read_bytes()


def test_each_format_is_known_by_how_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "ids.npy"
    for content, format in (
        (RAW, "nanogpt"),
        (RAW[:10], "nanogpt"),
        (bytes(1024), "nanogpt"),
        (bytes(4096), "nanogpt"),
        (LLMC_UINT16.header(len(IDS)) + RAW, "llmc"),
        (LLMC_UINT32.header(len(IDS)) + LARGE, "llmc"),
        (npy(np.array(IDS), path), "npy"),
    ):
        path.write_bytes(content)
        assert detect(path) == format
        if len(content) > len(RAW[:10]) and any(content):
            assert open_ids(path, format=format).tolist() == IDS


def test_llmcs_headers_are_its_own() -> None:
    assert LLMC_UINT16.header(3) == header(20240520, 1, 3)
    assert LLMC_UINT32.header(3) == header(20240801, 7, 3)


@pytest.mark.parametrize(
    "content", [header(20240522, 1, 9, 5) + RAW, header(20250101, 1, len(IDS)) + RAW]
)
def test_a_header_of_another_magic_is_not_taken_for_ids(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "eval.bin"
    path.write_bytes(content)
    message = r"header of magic 202\d+, not 20240520 version 1 or 20240801 version 7; give llm.c's"
    with pytest.raises(UsageError, match=message):
        detect(path)
    assert len(open_ids(path, format="nanogpt")) == 512 + len(IDS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            header(20240521, 1, len(IDS)) + RAW,
            "has magic 20240521 and version 1, not 20240520 vers",
        ),
        (header(20240520, 2, len(IDS)) + RAW, "has magic 20240520 and version 2"),
        (header(20240801, 1, len(IDS)) + LARGE, "has magic 20240801 and version 1"),
        (header(20240520, 1, len(IDS) + 1) + RAW, r"says it has 1,201 <u2 ids and has 2,400 bytes"),
        (header(20240520, 1, len(IDS)) + RAW[:-1], r"says it has 1,200 <u2 ids and has 2,399 byte"),
        (header(20240520, 1, len(IDS)) + RAW + b"\0", r"says it has 1,200 <u2 ids and has 2,401"),
        (header(20240801, 7, len(IDS)) + RAW, r"says it has 1,200 <u4 ids and has 2,400 bytes"),
        (header(20240520, 1, -1), r"says it has -1 <u2 ids"),
        (header(20240520, 1, 1)[:1000], r"has 1,000 bytes and llm.c's header 1,024"),
        (b"", r"has 0 bytes and llm.c's header 1,024"),
    ],
)
def test_a_wrong_llmc_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "ids.bin"
    path.write_bytes(content)
    with pytest.raises(CorruptionError, match=message):
        open_ids(path, format="llmc")


@pytest.mark.parametrize(
    ("format", "content"),
    [("nanogpt", b""), ("llmc", header(20240520, 1, 0))],
)
def test_a_file_without_tokens_is_refused(tmp_path: Path, format: str, content: bytes) -> None:
    path = tmp_path / "ids.bin"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="has no tokens; leave it out"):
        open_ids(path, format=format)


def test_half_an_id_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ids.bin"
    path.write_bytes(RAW[:-1])
    with pytest.raises(CorruptionError, match="has 2,399 bytes, which no number of uint16 ids has"):
        open_ids(path, format="nanogpt")


@pytest.mark.parametrize(
    "array", [np.array([1.0]), np.array([[1]]), np.array([True]), np.array(5), np.array(["a"])]
)
def test_an_array_of_something_else_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "ids.npy", array)
    with pytest.raises(UsageError, match=r"not one row of whole numbers; save ids\.reshape"):
        open_ids(tmp_path / "ids.npy", format="npy")


def test_a_damaged_or_pickled_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ids.npy"
    whole = npy(np.array(IDS), path)
    np.save(path, np.array([{}]), allow_pickle=True)
    pickled = path.read_bytes()
    for content in (whole[:-1], whole[:60], b"\x93NUMPY", b"", pickled):
        path.write_bytes(content)
        with pytest.raises(CorruptionError, match=r"is truncated or no .npy file of numbers"):
            open_ids(path, format="npy")


def test_an_absent_file_or_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*absent"):
        detect(tmp_path / "absent")
    with pytest.raises(UsageError, match="unknown token format 'csv'; choose nanogpt, llmc, npy"):
        open_ids(tmp_path / "absent", format="csv")
