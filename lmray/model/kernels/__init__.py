"""Machine code for a CPU's training in fp32: attention, normalisation, SwiGLU's gate, the loss.

`lmray.model.native` imports it, and hands it arrays.
"""

from lmray.model.kernels.attention import attend, attend_backward
from lmray.model.kernels.cross_entropy import cross_entropy, cross_entropy_backward
from lmray.model.kernels.gated_silu import gate, gate_backward
from lmray.model.kernels.rms_norm import normalise, normalise_backward

__all__ = [
    "attend",
    "attend_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "gate",
    "gate_backward",
    "normalise",
    "normalise_backward",
]
