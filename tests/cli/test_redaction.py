"""Keys of the environment are in nothing that lmray writes, packs or prints."""

import os
import secrets
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lmray.distributed.package import find_package
from tests.small import write_dataset

PROJECT = Path(__file__).parents[2]
SPACE = """'''Hypothesis: none.'''
from pathlib import Path
from lmray.config import Tracking
from lmray.sweeps.space import TO_THE_END
from tests.small import small_run
BASE = small_run(Path({tokens!r}), tracking=Tracking(wandb="offline"))
SPACE = {{"optim.lr": [1e-3, 1e-2]}}
SEEDS = [0]
ASHA = TO_THE_END
"""


@pytest.mark.slow
@pytest.mark.ray
def test_keys_are_in_no_file_of_a_sweep_nor_its_package_nor_what_is_printed(tmp_path: Path):
    keys = {name: secrets.token_hex(20) for name in ("WANDB_API_KEY", "RAY_AUTH_TOKEN")}
    root, project = tmp_path / "root", tmp_path / "project"
    project.mkdir()
    space = project / "space.py"
    space.write_text(SPACE.format(tokens=str(write_dataset(tmp_path / "tokens"))))
    command = ["sweep", "run", str(space), "--name", "rates", "--tokens-per-s", "1000", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "lmray", *command, "--root", str(root)],
        cwd=PROJECT,
        env=os.environ | keys | {"RAY_AUTH_MODE": "token", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    written = {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for name in ("run.json", "metrics.jsonl", "ledger.jsonl", "report.html", ".wandb"):
        assert [path for path in written if path.endswith(name)], f"no {name} was looked at"
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    subprocess.run(["git", "-C", str(project), "add", "space.py"], check=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, key in keys.items():
            patch.setenv(name, key)
        find_package(project).write(tmp_path / "package.zip")
    with zipfile.ZipFile(tmp_path / "package.zip") as archive:
        assert "space.py" in archive.namelist()
        written |= {f"package: {name}": archive.read(name) for name in archive.namelist()}
    written |= {"stdout": done.stdout, "stderr": done.stderr}
    for name, key in keys.items():
        found = [path for path, content in written.items() if key.encode() in content]
        assert found == [], f"{name} is in {found}"
