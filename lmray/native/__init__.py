"""Machine code that numba makes of Python: how kernels are written, and when they are loaded.

`compiled` and `lanes` import numba, for modules of kernels; `tensors` imports torch, for who calls
those that compute with tensors.
"""

from lmray.native.loading import load

__all__ = ["load"]
