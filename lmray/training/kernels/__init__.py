"""Machine code for a CPU's optimizer in fp32; `lmray.training.native` imports it."""

from lmray.training.kernels.adamw import update

__all__ = ["update"]
