"""Folders beneath a URL, s3://bucket/prefix or gs://...: a cache on this node that is kept equal.

Code reads and writes the cache, a folder like any other: CACHE/s3:/bucket/prefix/runs/x stands for
s3://bucket/prefix/runs/x on every node. Whoever writes a directory publishes it at the points from
which the work may go on elsewhere; whoever is about to use one refreshes it. What the URL has is
the truth: a refresh also removes what was never published.

One process writes to a directory. An object is there whole or not at all, and files that vouch for
others (state.json, manifest.json) come last and go first, so a writer that is killed between any
two leaves the old state or the new one. Credentials are those of the environment or of the machine;
none is read or written here.
"""

import itertools
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lmray.errors import LmrayError, UsageError
from lmray.storage import atomic_writer, is_locked, one_at_a_time

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

SCHEMES = ("s3:", "gs:")
"""What a URL begins with, and the name of the folder in the cache that has what lies there."""

_VOUCHING = ("state.json", "manifest.json")
_BLOCK = 8 << 20


def cached(path: Path | str) -> Path:
    """The place in this node's cache of a URL or of another node's cached path; else the path.

    Raises UsageError if it is a URL of another kind.
    """
    path = Path(path)
    if re.fullmatch(r"[A-Za-z][\w+.-]+:", path.parts[0] if path.parts else "") and not url(path):
        raise UsageError(
            f"{path} begins like a URL, and lmray reads and writes those that begin with "
            f"{' or '.join(f'{scheme}//' for scheme in SCHEMES)}; give one, or an absolute path"
        )
    for number, part in enumerate(path.parts):
        if part in SCHEMES:
            home = Path(os.environ.get("LMRAY_CACHE", "~/.cache/lmray")).expanduser()
            return home.absolute().joinpath(*path.parts[number:])
    return path


def url(path: Path | str) -> str:
    """The URL that a path in a cache stands for; empty for a folder of this machine."""
    parts = Path(path).parts
    for number, part in enumerate(parts):
        if part in SCHEMES:
            return f"{part}//{'/'.join(parts[number + 1 :])}"
    return ""


def exists(path: Path) -> bool:
    """Whether the URL of `path` has an object there or beneath; False for a local path."""
    return bool(url(path)) and bool(_objects(path))


def refresh(path: Path) -> list[Path]:
    """Makes a file or folder of the cache equal to its URL; returns the files that were fetched.

    Nothing happens to a local path, nor to one whose writer is a process of this machine.

    Raises LmrayError if the URL cannot be reached.
    """
    if not url(path):
        return []
    fetched = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(path.parent / f".{path.name}.refresh"):
        if _being_written(path):
            return []
        there = _objects(path)
        for name in _files(path).keys() - there.keys():
            (path / name).unlink()
        for name, info in there.items():
            file = path / name
            if not file.exists() or _stamp(file.stat()) != (info.size, info.mtime_ns):
                _fetch(file, info)
                fetched.append(file)
    return fetched


def publish(path: Path) -> None:
    """Makes the URL of a file or folder of the cache equal to it; nothing for a local path.

    Raises LmrayError if the URL cannot be reached.
    """
    if not url(path):
        return
    there = _objects(path)
    here = _files(path)
    for name in sorted(here, key=lambda name: (Path(name).name in _VOUCHING, name)):
        info = there.get(name)
        if info is None or here[name] != (info.size, info.mtime_ns):
            _send(path / name)
    _delete(path, there.keys() - here.keys())


def remove(path: Path) -> None:
    """Deletes what the URL of `path` has there or beneath; nothing for a local path."""
    if url(path):
        _delete(path, set(_objects(path)))


def names(folder: Path) -> list[str]:
    """What the URL of a folder has directly in it, by name; nothing for a local folder."""
    if not url(folder):
        return []
    from pyarrow.fs import FileSelector

    system, key = _store(folder)
    with _reaching(folder):
        found = system.get_file_info(FileSelector(key, allow_not_found=True))
    return sorted(info.base_name for info in found)


def _objects(path: Path) -> dict[str, "FileInfo"]:
    """The objects at or beneath a path's URL, by their names from there; "." for itself."""
    from pyarrow.fs import FileSelector, FileType

    system, key = _store(path)
    with _reaching(path):
        itself = system.get_file_info(key)
        if itself.type == FileType.File:
            return {".": itself}
        found = system.get_file_info(FileSelector(key, recursive=True, allow_not_found=True))
    files = [info for info in found if info.type == FileType.File]
    return {info.path.removeprefix(f"{key}/"): info for info in files}


def _files(path: Path) -> dict[str, tuple[int, int]]:
    """Size and time of the file, or of the files beneath a folder, by name as `_objects`.

    Hidden ones are locks and what is not whole yet.
    """
    if path.is_file():
        return {".": _stamp(path.stat())}
    found = {}
    for file in path.rglob("*"):
        name = file.relative_to(path)
        if not any(part.startswith(".") for part in name.parts):
            try:
                if file.is_file():
                    found[str(name)] = _stamp(file.stat())
            except FileNotFoundError:
                continue  # a folder that its writer has just put in its place
    return found


def _stamp(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns


def _fetch(file: Path, info: "FileInfo") -> None:
    system, key = _store(file)
    with (
        _reaching(file),
        system.open_input_stream(key) as source,
        atomic_writer(file) as target,
    ):
        shutil.copyfileobj(source, target, _BLOCK)
    os.utime(file, ns=(info.mtime_ns, info.mtime_ns))


def _send(file: Path) -> None:
    """Uploads a file and gives it the object's time, by which both are known to be equal."""
    system, key = _store(file)
    with file.open("rb") as source:
        with _reaching(file), system.open_output_stream(key) as target:
            shutil.copyfileobj(source, target, _BLOCK)
        with _reaching(file):
            info = system.get_file_info(key)
        # Of the file that was read: another one may have taken its place.
        os.utime(source.fileno(), ns=(info.mtime_ns, info.mtime_ns))


def _delete(path: Path, gone: set[str]) -> None:
    for name in sorted(gone, key=lambda name: (Path(name).name not in _VOUCHING, name)):
        _drop(path / name)


def _drop(file: Path) -> None:
    system, key = _store(file)
    with _reaching(file):
        system.delete_file(key)


def _store(path: Path) -> tuple["FileSystem", str]:
    """The file system that has a path's URL, and the key there."""
    scheme, _, rest = url(path).partition("://")
    bucket = rest.partition("/")[0]
    with _reaching(path):
        return _file_system(f"{scheme}://{bucket}", os.environ.get("AWS_ENDPOINT_URL", "")), rest


@lru_cache
def _file_system(bucket: str, endpoint: str) -> "FileSystem":
    from pyarrow.fs import FileSystem

    return FileSystem.from_uri(bucket)[0]


@contextmanager
def _reaching(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = " ".join(str(error).split())[:300]
        raise LmrayError(
            f"cannot reach {url(path)}: {said}; check the bucket's name and that this node has "
            f"credentials for it (its role, or AWS_* / GOOGLE_* in the environment)"
        ) from error


def _being_written(path: Path) -> bool:
    """Whether a process of this machine holds storage.locked on a folder or one it lies in."""
    within = itertools.takewhile(lambda folder: folder.name not in SCHEMES, (path, *path.parents))
    return any(map(is_locked, within))
