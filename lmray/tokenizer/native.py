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
from importlib import import_module
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
    return pattern in _WITH_KERNEL and enough(num_bytes)


def enough(num_bytes: int) -> bool:
    """Whether, with `num_bytes` more, this process has met enough text, or loaded kernels."""
    global _asked_bytes
    _asked_bytes += num_bytes
    return _asked_bytes >= WORTH_BYTES or _NAME in sys.modules


def kernels() -> ModuleType:
    """The module of kernels; the first process on a machine compiles them, others wait for it."""
    with _lock:
        if _NAME not in sys.modules:
            _load()
    return sys.modules[_NAME]


def _load() -> None:
    """Imports the kernels with the first cache folder that can be written to."""
    folders = [base / "lmray" / _version() for base in _bases()]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _compiled_into(folder):
                import_module(_NAME)
            return
        except OSError as error:
            _log.info("cannot keep token kernels in %s: %s", folder, error)
    _log.warning(
        "no cache folder can be written to (%s), so each process compiles the token kernels "
        "anew; set XDG_CACHE_HOME to a folder that can",
        ", ".join(map(str, folders)),
    )
    with tempfile.TemporaryDirectory() as folder, _compiled_into(Path(folder)):
        import_module(_NAME)


def _version() -> str:
    """A name that changes with the source of any kernel.

    numba sees when a function's own file has changed, but not when that of one it calls has.
    """
    digest = hashlib.sha256()
    for source in sorted((Path(__file__).parent / "kernels").glob("*.py")):
        digest.update(source.read_bytes())
    return f"kernels-{digest.hexdigest()[:16]}"


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
