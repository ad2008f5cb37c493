"""What may import what: a fresh interpreter, or the syntax tree of every file, says so."""

import ast
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import lmray
from lmray.config import flatten
from tests.small import small_run

PACKAGE = Path(lmray.__file__).parent

ORDER = [
    "errors",
    "machine",
    "progress",
    "refusal",
    "storage",
    "remote",
    "threads",
    "native",
    "config",
    "presets",
    "accounting",
    "corpus",
    "tokenizer",
    "dataset",
    "model",
    "training",
    "generation",
    "runs",
    "sweeps",
    "distributed",
    "cli",
    "__main__",
]
"""The rooms from the ground up: each imports from itself and from those before it."""


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The modules that a file names in imports anywhere in it, also in functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides its room"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        assert not [name for name in imported(path) if name.startswith("lmray")]
        return
    below = ORDER[: ORDER.index(room(path)) + 1]
    names = (name.split(".") for name in imported(path))
    rooms = {parts[1] for parts in names if parts[0] == "lmray" and len(parts) > 1}
    assert rooms <= {*below, "__version__"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_distributed_room_imports_ray(path: Path) -> None:
    imports_ray = any(name.split(".")[0] == "ray" for name in imported(path))
    assert room(path) == "distributed" or not imports_ray


UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"torch.save", "torch.load", "torch.jit.load", "torch.package"}


def unpickles(path: Path) -> list[str]:
    """What a file writes or reads that executes what it reads, with the line."""
    found = [name for name in imported(path) if name.split(".")[0] in UNSAFE_MODULES]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in UNSAFE_CALLS:
            found.append(f"{ast.unparse(node)}:{node.lineno}")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found.append(f"allow_pickle:{node.value.lineno}")
    return found + [name for name in imported(path) if name in UNSAFE_CALLS]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_pickled(path: Path) -> None:
    assert unpickles(path) == []


def test_the_scan_sees_pickles(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(
        "import pickle\nfrom torch import load\nimport torch, numpy\n"
        "torch.load(1, weights_only=False)\nnumpy.load(1, allow_pickle=True)\n"
    )
    assert unpickles(path) == ["pickle", "torch.load:4", "allow_pickle:5", "torch.load"]


def test_the_scan_sees_imports(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(
        "import ray.tune as t\nfrom lmray import config\n"
        "def f():\n    if t:\n        from lmray.cli.main import main\n"
    )
    assert list(imported(path)) == ["ray.tune", "lmray.config", "lmray.cli.main.main"]
    assert any(name.startswith("ray") for path in SOURCES for name in imported(path))
    assert {room(path) for path in SOURCES} == {*ORDER, "__init__"}


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


HEAVY = """
import sys
loaded = {name.partition(".")[0] for name in sys.modules}
print(*sorted(loaded & {"torch", "ray", "wandb", "matplotlib", "numba"}))
"""


def loaded_after_importing(*modules: str) -> str:
    return run_python(f"import {', '.join(modules)}\n{HEAVY}")


def test_text_and_tokens_need_no_torch() -> None:
    light = ("lmray", "lmray.config", "lmray.presets", "lmray.corpus", "lmray.tokenizer")
    others = ("lmray.accounting", "lmray.dataset", "lmray.cli.main")
    assert loaded_after_importing(*light, *others) == ""


def test_training_needs_no_ray() -> None:
    rooms = ("lmray.model", "lmray.training", "lmray.generation", "lmray.runs.execute")
    assert loaded_after_importing(*rooms) == "torch"


def test_lmray_train_in_one_process_needs_no_ray(small_dataset: Path, tmp_path: Path) -> None:
    """A whole run, by the command line, up to its last evaluation and checkpoint."""
    changes = [f"{key}={value}" for key, value in flatten(small_run(small_dataset)).items()]
    code = (
        "import atexit, runpy, sys\n"
        f"atexit.register(exec, {HEAVY!r}, {{}})\n"
        "sys.argv[0] = 'lmray'\n"
        "runpy.run_module('lmray', run_name='__main__')\n"
    )
    assert run_python(code, "train", "--root", str(tmp_path), *changes) == "numba torch"
    (run,) = (tmp_path / "runs").iterdir()
    assert '"done"' in (run / "run.json").read_text()


def test_help_answers_in_half_a_second() -> None:
    script = Path(sysconfig.get_path("scripts")) / "lmray"

    def seconds() -> float:
        begun = time.perf_counter()
        done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
        assert "train" in done.stdout
        return time.perf_counter() - begun

    # Any machine is busy at times: one of a few must be quick.
    assert any(seconds() < 0.5 for _ in range(10))
