"""The kernel with which a CPU's optimizer steps in fp32."""

from functools import cache
from pathlib import Path
from types import ModuleType

from lmray.native import load


@cache
def kernels() -> ModuleType:
    """The module of kernels, loaded, or compiled once a machine, when first asked for."""
    return load("lmray.training.kernels", Path(__file__).parent / "kernels")
