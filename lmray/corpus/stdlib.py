"""The embedded default corpus: the sources of the running interpreter's standard library.

Every Python carries this text, so a first run needs no network. It is code and its documentation,
one document a module; it differs between Python versions.
"""

import os
import platform
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from lmray.errors import PreflightError
from lmray.progress import Progress

_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
# Not text of the library but of one machine's build; it would make each machine's corpus another.
_BUILD_SETTINGS = "_sysconfigdata"
_LEAST_BYTES = 1_000_000


def modules() -> list[Path]:
    """The library's source files without tests, sorted, empty ones left out.

    Raises PreflightError where this Python came without sources.
    """
    library = Path(sysconfig.get_path("stdlib"))
    files = sorted(path for path in _sources(library) if path.stat().st_size)
    total = sum(path.stat().st_size for path in files)
    if total < _LEAST_BYTES:
        raise PreflightError(
            f"this Python has {total:,} bytes of standard-library sources in {library}, too few "
            f"for the default corpus; name a text file with --corpus FILE, or use a full Python"
        )
    return files


def _sources(library: Path) -> Iterator[Path]:
    for directory, inner, names in os.walk(library):
        inner[:] = set(inner) - _LEFT_OUT
        for name in names:
            if name.endswith(".py") and not name.startswith(_BUILD_SETTINGS):
                yield Path(directory, name)


def documents(files: Sequence[Path], *, progress: Progress) -> Iterator[bytes]:
    """The text of each module."""
    for number, path in enumerate(files, start=1):
        yield path.read_bytes()
        progress("corpus", number, len(files), "modules")


def facts(files: Sequence[Path]) -> dict[str, object]:
    """What the text depends on, for the record of its conversion."""
    return {
        "corpus": "stdlib",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "modules": len(files),
        "bytes": sum(path.stat().st_size for path in files),
    }
