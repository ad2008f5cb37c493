import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmray.errors import CorruptionError, PreflightError
from lmray.storage import (
    append_line,
    atomic_directory,
    atomic_writer,
    locked,
    read_json,
    read_lines,
    sha256_file,
    write_bytes,
    write_json,
)


def in_subprocess(code: str, *arguments: Path | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_written_file_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_bytes(path, b"old")
    with atomic_writer(path) as file:
        file.write(b"ne")
        file.write(b"w")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"text")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def write_folder(path: Path, content: str) -> None:
    with atomic_directory(path) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "file").write_text(content)


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "outer" / "folder"
    write_folder(path, "new")
    assert (path / "inner" / "file").read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o755
    assert list(path.parent.iterdir()) == [path]
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "empty", "new")
    assert (tmp_path / "empty" / "inner" / "file").exists()


def test_a_folder_or_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    write_folder(path, "first")
    before = path.stat().st_ino
    write_folder(path, "first")
    assert path.stat().st_ino == before
    (tmp_path / "file").write_text("mine")
    for taken in (path, tmp_path / "file"):
        with pytest.raises(PreflightError, match="holds something else; choose another folder"):
            write_folder(taken, "other")
    assert (path / "inner" / "file").read_text() == "first"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", path]


def test_a_failing_block_leaves_no_folder(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_directory(tmp_path / "folder") as aside:
            (aside / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failing_block_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail() -> None:
        with atomic_writer(path) as file:
            file.write(b"new" * 10_000)
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_kill_9_within_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    done = in_subprocess(
        "import os, signal, sys\n"
        "from lmray.storage import atomic_writer\n"
        "with atomic_writer(sys.argv[1]) as file:\n"
        "    file.write(b'new' * 100_000)\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n",
        path,
    )
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert [other.suffix for other in tmp_path.iterdir() if other != path] == [".tmp"]
    write_bytes(path, b"newer")
    assert path.read_bytes() == b"newer"


FULL_DISK = """
import resource, sys
from pathlib import Path
from lmray.storage import append_line, write_bytes

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
path = Path(sys.argv[1])
try:
    write_bytes(path, b"x" * 10_000) if path.suffix == ".bin" else append_line(path, "x" * 10_000)
except OSError as error:
    sys.exit(error.strerror)
"""


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")
    done = in_subprocess(FULL_DISK, path, "5000")
    assert (done.returncode, done.stderr) == (1, "File too large\n")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_lines_before(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, 1)
    done = in_subprocess(FULL_DISK, path, "5000")
    assert (done.returncode, done.stderr) == (1, "File too large\n")
    assert path.stat().st_size == 5000
    assert read_lines(path) == [1]
    append_line(path, 2)
    assert path.read_bytes() == b"1\n2\n"


records = st.lists(
    st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5), max_size=2),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)
@given(records, st.data())
def test_a_line_appended_to_a_torn_file_follows_the_whole_lines(
    written: list[Any], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "lines.jsonl")
        for record in written:
            append_line(path, record)
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        os.truncate(path, cut)
        kept = written[: whole[:cut].count(b"\n")]
        assert read_lines(path) == kept
        append_line(path, {"new": True})
        assert read_lines(path) == [*kept, {"new": True}]


def test_a_torn_line_of_any_length_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for length in (1, 4095, 4096, 4097, 8192, 20_000):
        path.write_bytes(b'"first"\n' + b"x" * length)
        append_line(path, "second")
        assert path.read_bytes() == b'"first"\n"second"\n'
        path.write_bytes(b"x" * length)
        append_line(path, "only")
        assert path.read_bytes() == b'"only"\n'


@pytest.mark.parametrize("damaged", [b"{", b"", b'{"a": 1}}', b"\xff\xfe", b"\x00\x00"])
def test_a_damaged_line_is_refused_by_its_number(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"\n".join([b"1", damaged, b"3", b""]))
    with pytest.raises(CorruptionError, match=r"lines.jsonl:2 is not valid JSON \(.*remove that"):
        read_lines(path)


def test_an_absent_file_has_no_lines(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "absent.jsonl") == []


def test_json_is_written_for_people_and_read_back(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, True], "a": {"é": "\n"}}
    write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == value
    assert (tmp_path / "file.json").read_text().startswith('{\n  "b": [\n    1,')


def test_json_without_a_number_for_nan_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"loss": 1.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_line(path, float("inf"))
    assert json.loads(path.read_text()) == {"loss": 1.5}


def test_a_damaged_json_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text('{"a": 1')
    with pytest.raises(CorruptionError, match=r"file.json is not valid JSON \(.*delete it and"):
        read_json(path)


def test_the_checksum_is_that_of_all_bytes(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(2_500_000)
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_a_lock_keeps_another_process_out_until_it_ends(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from lmray.storage import locked\n"
        "with locked(Path(sys.argv[1]), 'busy'):\n"
        "    print('in', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(PreflightError, match=r"^busy$"), locked(tmp_path, "busy"):
            pass
        other.kill()
    with locked(tmp_path, "busy"):
        pass
