"""What a result must carry to be made again: versions, hardware, the code's revision."""

import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lmray.machine import available_cores
from lmray.runs.revision import git_revision

_PACKAGES = ("lmray", "torch", "numpy", "ray", "regex", "safetensors")


def provenance() -> dict[str, Any]:
    """Versions, hardware and git revision of this process, as plain values."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "hardware": {
            "host": platform.node(),
            "machine": platform.machine(),
            "cpu": _cpu(),
            "cores": available_cores(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        },
        "git_revision": git_revision(Path(__file__).parents[2]),
        "command": sys.argv,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _cpu() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
