"""A folder of this machine in the place of what URLs lead to: every bucket is a folder in it."""

from pathlib import Path

import pytest

from lmray import remote


def use_folder(folder: Path, patch: pytest.MonkeyPatch | None = None) -> None:
    """Lets lmray.remote write to `folder`, for good where there is no `patch` to undo it."""
    from fsspec.implementations.dirfs import DirFileSystem
    from fsspec.implementations.local import LocalFileSystem
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    beneath = DirFileSystem(path=str(folder), fs=LocalFileSystem(auto_mkdir=True))
    folder.mkdir(parents=True, exist_ok=True)

    def file_system(bucket: str, endpoint: str) -> PyFileSystem:
        return PyFileSystem(FSSpecHandler(beneath))

    (patch or pytest.MonkeyPatch()).setattr(remote, "_file_system", file_system)
