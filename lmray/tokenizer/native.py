"""When and from where the kernels are loaded: lazily, compiled once per machine and version."""

import fcntl
import hashlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from lmray.tokenizer.pattern import GPT2_PATTERN

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_asked_bytes = 0

WORTH_BYTES = 1 << 18
"""Text after which a process loads the kernels: as long as that takes, `regex` does as much."""

_NAME = "lmray.tokenizer.kernels"
_WITH_KERNEL = {GPT2_PATTERN}


def worth_it(pattern: str, num_bytes: int) -> bool:
    """Whether to use kernels for `num_bytes` more of text.

    They exist for the pattern, and are loaded or this process has met enough text to load them.
    """
    global _asked_bytes
    if pattern not in _WITH_KERNEL:
        return False
    _asked_bytes += num_bytes
    return _asked_bytes >= WORTH_BYTES or _NAME in sys.modules


def kernels() -> ModuleType:
    """The module of kernels; the first process on a machine compiles, others wait for it.

    numba keeps what it compiled, but does not see that a function in another file has changed.
    So the folder is named for the source of all kernels.
    """
    with _lock:
        if _NAME not in sys.modules:
            with _compiled_into(_cache_directory()):
                __import__(_NAME)
    return sys.modules[_NAME]


def _cache_directory() -> Path:
    """A folder for these kernels' machine code that can be written to."""
    digest = hashlib.sha256()
    for source in sorted((Path(__file__).parent / "kernels").glob("*.py")):
        digest.update(source.read_bytes())
    name = f"kernels-{digest.hexdigest()[:16]}"
    for base in _bases():
        directory = base / "lmray" / name
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory):
                return directory
        except OSError:
            continue
    directory = Path(tempfile.mkdtemp(prefix="lmray-kernels-"))
    _log.warning(
        "no cache folder can be written to (%s), so each process compiles the token kernels "
        "anew into %s; set XDG_CACHE_HOME to a folder that can",
        ", ".join(map(str, _bases())),
        directory,
    )
    return directory


def _bases() -> list[Path]:
    chosen = [os.environ.get(name) for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")]
    return [*(Path(name) for name in chosen if name), Path("~/.cache").expanduser()]


@contextmanager
def _compiled_into(directory: Path) -> Iterator[None]:
    """Makes numba read and write machine code in `directory`, one process at a time."""
    import numba

    config: Any = numba.config
    before = config.CACHE_DIR
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        config.CACHE_DIR = str(directory)
        try:
            yield
        finally:
            config.CACHE_DIR = before
