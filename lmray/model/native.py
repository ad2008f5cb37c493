"""The kernels with which a CPU trains in fp32 between its matrix products."""

from functools import cache
from pathlib import Path
from types import ModuleType

from lmray.native import load


@cache
def kernels() -> ModuleType:
    """The module of kernels, loaded, or compiled once a machine, when first asked for."""
    return load("lmray.model.kernels", Path(__file__).parent / "kernels")
