"""Files that are whole or absent: written aside, fsynced, renamed; JSON and checksums on top."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lmray.errors import CorruptionError, PreflightError

ASIDE = ".tmp"
"""How the hidden files end that a killed writer leaves behind."""

_BLOCK = 1 << 20


@contextmanager
def atomic_writer(path: Path | str) -> Iterator[IO[bytes]]:
    """Opens a file beside `path` that takes its place once the block has ended without an error.

    A reader, also after kill -9 or a full disk, sees the old file or the new one, never a part.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=ASIDE, dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.chmod(0o644)  # mkstemp's files are their owner's alone
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yields a hidden folder beside `path` that becomes it once the block has ended without error.

    Raises PreflightError if `path` holds something by then, unless that is the same files.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=ASIDE, dir=path.parent))
    try:
        yield aside
        found = _digests(path)
        if found and found != _digests(aside):
            raise PreflightError(f"{path} holds something else; choose another folder or delete it")
        if not found:
            for file in aside.rglob("*"):
                _sync(file)
            aside.chmod(0o755)  # mkdtemp's folders are their owner's alone
            aside.rename(path)
            sync_directory(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _digests(path: Path) -> dict[str, str]:
    """The SHA-256 of each file beneath `path`, or of `path` itself; empty where there is none."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): sha256_file(file) for file in files}


def sync_directory(directory: Path) -> None:
    """Makes a rename or a new entry in `directory` survive a power cut."""
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Writes `data` to `path`, whole or not at all."""
    with atomic_writer(path) as file:
        file.write(data)


def canonical_json(value: Any) -> str:
    """The one JSON text of `value`: sorted keys, no spaces, no NaN or infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_json(path: Path | str, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path | str) -> Any:
    """Reads a JSON file.

    Raises CorruptionError if it is not JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise CorruptionError(
            f"{path} is not valid JSON ({error}); delete it and make it again"
        ) from error


def append_line(path: Path | str, value: Any) -> None:
    """Appends `value` as one fsynced JSON line, in place of a line that a kill has left torn."""
    with Path(path).open("a+b") as file:
        cut_torn_line(file)
        file.write((canonical_json(value) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def cut_torn_line(file: IO[bytes]) -> None:
    """Truncates `file` after its last newline: what follows was never acknowledged to anyone."""
    position = end = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - 4096)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            position = start + newline + 1
            break
        position = start
    if position < end:
        file.truncate(position)


def read_lines(path: Path | str) -> list[Any]:
    """Reads JSON lines; an absent file has none, and an unfinished last line is left out.

    Raises CorruptionError for any other line that is not JSON.
    """
    path = Path(path)
    if not path.exists():
        return []
    records = []
    *lines, _unfinished = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise CorruptionError(
                f"{path}:{number} is not valid JSON ({error}); restore the file or remove that line"
            ) from error
    return records


def last_line(path: Path | str) -> Any:
    """The last whole line of a file of JSON lines that another process may be writing to.

    {} if there is none. Reads no more than the file's end.
    """
    path = Path(path)
    if not path.exists():
        return {}
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 65_536))
        lines = file.read().split(b"\n")[:-1]
    return json.loads(lines[-1]) if lines else {}


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Lets one process at a time into the block, the others wait; `path` is made if it is absent.

    The lock is on `path` and dies with its process.
    """
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_locked(directory: Path) -> bool:
    """Whether a process of this machine is within `locked(directory)`."""
    lock = directory / ".lock"
    if not lock.exists():
        return False
    with lock.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def locked(directory: Path, busy: str) -> Iterator[None]:
    """Keeps a second process out of the block; the lock dies with its process.

    Raises PreflightError with the message `busy` if another one is in it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PreflightError(busy) from None
        yield
