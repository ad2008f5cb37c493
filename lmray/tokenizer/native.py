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
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from lmray.tokenizer.pattern import GPT2_PATTERN, GPT4_PATTERN, NANOCHAT_PATTERN

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_asked_bytes = 0

WORTH_BYTES = 1 << 18
"""Text after which a process loads the kernels: as long as that takes, `regex` does as much."""

_NAME = "lmray.tokenizer.kernels"

_GPT2_ORIGINAL = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT2_TIKTOKEN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
_GPT4_ORIGINAL = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_RULES: dict[str, tuple[str, tuple[int | bool, ...]]] = {
    GPT2_PATTERN: ("gpt2", ()),
    _GPT2_ORIGINAL: ("gpt2", ()),
    _GPT2_TIKTOKEN: ("gpt2", ()),
    GPT4_PATTERN: ("gpt4", (3, True)),
    # As first published, and in Llama 3: "\n " at the end of a text is two pre-tokens.
    _GPT4_ORIGINAL: ("gpt4", (3, False)),
    # Qwen 2's.
    _GPT4_ORIGINAL.replace("{1,3}", ""): ("gpt4", (1, False)),
    NANOCHAT_PATTERN: ("gpt4", (2, False)),
}
"""Spellings of patterns that have kernels: the module that compiles them, and their rules."""


def worth_it(pattern: str, num_bytes: int) -> bool:
    """Whether to use kernels for `num_bytes` more of text.

    They know the pattern, and are loaded for it or this process has met enough text to do so.
    """
    return knows(pattern) and enough(num_bytes, module=_module(pattern))


def knows(pattern: str) -> bool:
    """Whether there are kernels for the pattern."""
    return pattern in _RULES


def enough(num_bytes: int, *, module: str = _NAME) -> bool:
    """Whether, with `num_bytes` more, this process has met enough text, or loaded the kernels."""
    global _asked_bytes
    _asked_bytes += num_bytes
    return _asked_bytes >= WORTH_BYTES or module in sys.modules


def kernels() -> ModuleType:
    """The module of kernels; the first process on a machine compiles them, others wait for it."""
    return _loaded(_NAME)


def rules(pattern: str) -> tuple[int | bool, ...]:
    """What tells kernels which pattern it is; they are compiled for it when this returns."""
    _loaded(_module(pattern))
    return _RULES[pattern][1]


def _module(pattern: str) -> str:
    """The name of the module that compiles kernels for the pattern."""
    return f"{_NAME}.{_RULES[pattern][0]}"


def _loaded(name: str) -> ModuleType:
    with _lock:
        if name not in sys.modules:
            _load(name)
    return sys.modules[name]


def _load(name: str) -> None:
    """Imports a module of kernels with the first cache folder that can be written to."""
    folders = [base / "lmray" / _version() for base in _bases()]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _compiled_into(folder):
                import_module(name)
            return
        except OSError as error:
            _log.info("cannot keep token kernels in %s: %s", folder, error)
    _log.warning(
        "no cache folder can be written to (%s), so each process compiles the token kernels "
        "anew; set XDG_CACHE_HOME to a folder that can",
        ", ".join(map(str, folders)),
    )
    with _compiled_into(Path(_own_folder().name)):
        import_module(name)


@cache
def _own_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that is removed when this process ends."""
    return tempfile.TemporaryDirectory()


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
