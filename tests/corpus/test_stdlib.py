import json
import platform
from pathlib import Path

import pytest

from lmray.corpus import fetch, prepare, stat, stdlib
from lmray.errors import PreflightError


def test_the_default_corpus_is_large_and_the_same_each_time(tmp_path: Path) -> None:
    first = fetch("stdlib", root=tmp_path / "one")
    second = prepare("stdlib", name="stdlib", root=tmp_path / "two")
    assert first.digest() == second.digest()
    train, valid = stat(first.train), stat(first.valid)
    assert train.bytes + valid.bytes >= 8_000_000
    assert valid.bytes >= 200_000
    assert train.documents + valid.documents == len(stdlib.modules())
    record = json.loads((tmp_path / "one" / "corpora" / "stdlib" / "source.json").read_text())
    assert platform.python_version() in record["source"]["python"]


def test_no_tests_or_installed_packages_are_in_it() -> None:
    modules = stdlib.modules()
    assert modules == sorted(modules)
    assert {"argparse.py", "typing.py"} <= {path.name for path in modules}
    left_out = {"test", "tests", "idle_test", "site-packages", "dist-packages"}
    assert not any(left_out & set(path.parts) for path in modules)


def test_a_python_without_sources_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in (tmp_path, tmp_path / "python311.zip"):
        monkeypatch.setattr("sysconfig.get_path", lambda name, library=library: str(library))
        with pytest.raises(
            PreflightError, match=r"has 0 bytes of .* name a text file with --corpus"
        ):
            fetch("stdlib", root=tmp_path)
