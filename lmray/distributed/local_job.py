"""A job on this machine: the package unpacked, the command run in it, as a cluster would.

A process of its own is enough: what needs Ray starts it, and two of Ray's own job servers on one
machine get into each other's way, as they listen at one port (Ray 2.60).
"""

import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from lmray.distributed.package import Package

_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "CUDA_VISIBLE_DEVICES", "RAY_AUTH_MODE")
"""What the command sees of this environment without being asked, as on a host one logs in to."""


def run_here(
    command: Sequence[str], package: Package, folder: Path, environment: Mapping[str, str]
) -> int:
    """Runs the command in a copy of the package's files and returns its exit code.

    Ctrl-C, which a terminal tells the command as well, and SIGTERM end it as they would without us:
    it may write a checkpoint first. One that a signal ends has a shell's exit code for that.
    """
    words = [sys.executable, "-m", *command] if command[0] == "lmray" else list(command)
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="lmray-submit-") as scratch:
        archive, files = Path(scratch) / "package.zip", Path(scratch) / "package"
        package.write(archive)
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(files)
            for name in package.files:
                (files / name).chmod(zipped.getinfo(name).external_attr >> 16)
        where = files / folder.resolve().relative_to(package.root)
        more = {"PYTHONPATH": str(files), **environment}
        return _run_to_its_end(subprocess.Popen(words, cwd=where, env=kept | more))


def _run_to_its_end(process: subprocess.Popen[bytes]) -> int:
    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        while True:
            try:
                code = process.wait()
            except KeyboardInterrupt:
                continue
            return code if code >= 0 else 128 - code
    finally:
        signal.signal(signal.SIGTERM, before)
