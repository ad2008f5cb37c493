"""From where kernels are loaded: compiled once per machine and version."""

import fcntl
import hashlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

_log = logging.getLogger(__name__)
_lock = threading.Lock()


def load(name: str, sources: Path) -> ModuleType:
    """The module of kernels; the first process on a machine compiles it, others wait for it.

    `sources` is the folder of the kernels' code, whose change makes their machine code another's.
    """
    with _lock:
        if name not in sys.modules:
            _load(name, sources)
    return sys.modules[name]


def version(sources: Path) -> str:
    """A name that changes with the source of any kernel, and with how kernels are made.

    numba sees when a function's own file has changed, but not when that of one it calls has.
    """
    digest = hashlib.sha256()
    for folder in (Path(__file__).parent, sources):
        for source in sorted(folder.glob("*.py")):
            digest.update(source.read_bytes())
    return f"kernels-{digest.hexdigest()[:16]}"


def _load(name: str, sources: Path) -> None:
    """Imports a module of kernels with the first cache folder that can be written to."""
    folders = [base / "lmray" / version(sources) for base in _bases()]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _compiled_into(folder):
                import_module(name)
            return
        except OSError as error:
            _log.info("cannot keep kernels in %s: %s", folder, error)
    _log.warning(
        "no cache folder can be written to (%s), so each process compiles %s anew; set "
        "XDG_CACHE_HOME to a folder that can",
        ", ".join(map(str, folders)),
        name,
    )
    with _compiled_into(Path(_own_folder().name)):
        import_module(name)


@cache
def _own_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that is removed when this process ends."""
    return tempfile.TemporaryDirectory()


def _bases() -> list[Path]:
    chosen = [os.environ.get(name) for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")]
    return [*(Path(name) for name in chosen if name), Path("~/.cache").expanduser()]


@contextmanager
def _compiled_into(folder: Path) -> Iterator[None]:
    """Makes numba read and write machine code in `folder`, one process at a time."""
    import numba

    config: Any = numba.config
    before = config.CACHE_DIR
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        config.CACHE_DIR = str(folder)
        try:
            yield
        finally:
            config.CACHE_DIR = before
