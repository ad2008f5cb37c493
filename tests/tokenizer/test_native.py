"""When kernels are loaded, and where their machine code is kept; each in fresh interpreters."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lmray
from lmray.tokenizer import GPT2_PATTERN, native

LOAD = """
import time
from lmray.tokenizer import native, pattern
begun = time.perf_counter()
kernels = native.kernels()
native.rules(pattern.GPT2_PATTERN)
stats = [getattr(kernels, name).stats for name in ("find_specials", "count", "encode")]
hits = sum(sum(stat.cache_hits.values()) for stat in stats)
misses = sum(sum(stat.cache_misses.values()) for stat in stats)
print(native.__file__, hits, misses)
"""


def start(code: str, package: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(package), **environment},
        cwd=package,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def hits_and_misses(process: subprocess.Popen[str]) -> tuple[int, int]:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    _file, hits, misses = out.split()
    return int(hits), int(misses)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of lmray whose folders nobody may write to."""
    folder = tmp_path_factory.mktemp("installed")
    source = Path(lmray.__file__).parent
    shutil.copytree(source, folder / "lmray", ignore=shutil.ignore_patterns("__pycache__"))
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


@pytest.mark.slow
def test_one_process_of_a_machine_compiles(package: Path, tmp_path: Path) -> None:
    """Each kernel is compiled by one of two at once and by no later one, not beside the source."""
    environment = {"XDG_CACHE_HOME": str(tmp_path), "NUMBA_CACHE_DIR": ""}
    both = [start(LOAD, package, **environment) for _ in range(2)]
    hits, misses = zip(*(hits_and_misses(process) for process in both), strict=True)
    assert (sum(hits), sum(misses)) == (3, 3)
    assert hits_and_misses(start(LOAD, package, **environment)) == (3, 0)
    (kept,) = (tmp_path / "lmray").iterdir()
    assert list(kept.rglob("*.nbc"))
    assert not list(package.rglob("*.nb?"))


@pytest.mark.slow
def test_without_a_folder_to_write_to_it_still_goes(package: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    environment = {"XDG_CACHE_HOME": str(blocked), "HOME": str(blocked), "NUMBA_CACHE_DIR": ""}
    process = start(LOAD, package, **environment)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert out.split()[1:] == ["0", "3"]
    assert "set XDG_CACHE_HOME to a folder" in err


def test_little_text_does_not_load_numba() -> None:
    """A prompt is encoded sooner than kernels are loaded; a corpus is not."""
    code = """
import sys
from lmray.tokenizer import (
    GPT2_PATTERN, PretokenCounts, Tokenizer, count_pretokens, learn_merges
)
tokenizer = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [])
tokenizer.encode("Once upon a time")
count_pretokens(b"Once upon a time", pattern=GPT2_PATTERN, special_tokens=[])
learn_merges(PretokenCounts.of({b"once": 1}), vocab_size=259, special_tokens=[])
assert "numba" not in sys.modules
for _ in range(300):
    tokenizer.encode_bytes(b"Once upon a time" * 64)
assert "numba" in sys.modules
"""
    done = start(code, Path(lmray.__file__).parent.parent)
    assert done.communicate(timeout=200)[1] == ""
    assert done.returncode == 0


def test_other_patterns_have_no_kernel() -> None:
    assert native.worth_it(GPT2_PATTERN, native.WORTH_BYTES)
    assert not native.worth_it(r"\S+|\s+", native.WORTH_BYTES)


def test_a_pattern_does_not_load_what_another_needs() -> None:
    code = """
import sys
from lmray.tokenizer import GPT2_PATTERN, GPT4_PATTERN, native
native.rules(GPT2_PATTERN)
assert "lmray.tokenizer.kernels.gpt4" not in sys.modules
assert len(native.kernels().encode.signatures) == 1
assert native.rules(GPT4_PATTERN) == (3, True)
assert len(native.kernels().encode.signatures) == 2
"""
    done = start(code, Path(lmray.__file__).parent.parent)
    assert done.communicate(timeout=200)[1] == ""
    assert done.returncode == 0
