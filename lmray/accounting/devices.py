"""What devices can do at most, and how long and dear a training is at a share of that."""

import re
from dataclasses import dataclass
from typing import Literal

from lmray.errors import UsageError

DType = Literal["fp32", "tf32", "bf16"]

# TFLOP/s of dense products; data sheets also print twice as much, "with sparsity". By a pattern for
# torch.cuda.get_device_name(); the first that is found counts.
_PEAKS: dict[str, dict[DType, float]] = {
    # NVIDIA H100 and H200 data sheets: 67 | 989* | 1,979*; PCIe 51 | 756* | 1,513*; NVL 60 | 835* |
    # 1,671*. Half of what has a star, which is with sparsity.
    "H100 PCIe": {"fp32": 51, "tf32": 378, "bf16": 756},
    "H100 NVL|H200 NVL": {"fp32": 60, "tf32": 417.5, "bf16": 835},
    # NVIDIA GH200 data sheet: 67 | 494 | 990.
    "GH200|H200|H100": {"fp32": 67, "tf32": 494.5, "bf16": 989},
    # NVIDIA HGX B200 data sheet: 75 | 2,200* | 4,500* a GPU.
    "B200": {"fp32": 75, "tf32": 1100, "bf16": 2250},
    # NVIDIA A100 data sheet (nvidia-1758950), the same for SXM and PCIe.
    "A100": {"fp32": 19.5, "tf32": 156, "bf16": 312},
    # NVIDIA L40S, L4 and A10 data sheets.
    "L40S": {"fp32": 91.6, "tf32": 183, "bf16": 362},
    "L4": {"fp32": 30.3, "tf32": 60, "bf16": 121},
    "A10": {"fp32": 31.2, "tf32": 62.5, "bf16": 125},
    # White papers of GA102 and Ada, appendix A: bf16 adding up in fp32.
    "RTX 3090": {"fp32": 35.6, "tf32": 35.6, "bf16": 71},
    "RTX 4090": {"fp32": 82.6, "tf32": 82.6, "bf16": 165.2},
    # NVIDIA V100 and T4 data sheets; their tensor cores know neither of the other two types.
    "V100-PCIE": {"fp32": 14},
    "V100": {"fp32": 15.7},
    "T4": {"fp32": 8.1},
}

_OTHERS = r"\b(MIG|Laptop|Max-Q|Ti|D|FHHL)\b"
"""What the name of a slice, or of another device with a known one's name in its own, has."""


def peak_flops(device: str, dtype: DType) -> float | None:
    """FLOP/s of `device` at most, or None for a device or dtype that the table does not have.

    `device` is what torch calls it or a part of that, as "H100". A slice of a GPU and a laptop's
    namesake of one are other devices. Figures are those of NVIDIA's data sheets and white papers,
    for products without sparsity.
    """
    if re.search(_OTHERS, device):
        return None
    for pattern, peaks in _PEAKS.items():
        if re.search(rf"\b({pattern})\b", device, re.IGNORECASE):
            return peaks[dtype] * 1e12 if dtype in peaks else None
    return None


def mfu(flops_per_s: float, device: str, dtype: DType) -> float | None:
    """Model FLOPs utilisation: a training's FLOP/s over the peak; None where that is unknown."""
    peak = peak_flops(device, dtype)
    return None if peak is None else flops_per_s / peak


@dataclass(frozen=True)
class Estimate:
    """How long a training takes, and what it costs."""

    seconds: float
    cost: float
    """In the currency of the price."""

    @property
    def days(self) -> float:
        """Days of 24 hours."""
        return self.seconds / 86_400

    @property
    def years(self) -> float:
        """Years of 365.25 days."""
        return self.days / 365.25


def estimate(
    flops: float, *, device: str, dtype: DType, mfu: float, price_per_hour: float = 0.0
) -> Estimate:
    """Time and cost of `flops` on one device.

    Raises UsageError for an unknown device or dtype and a utilisation outside (0, 1].
    """
    peak = peak_flops(device, dtype)
    if peak is None:
        known = ", ".join(pattern.replace("|", ", ") for pattern in _PEAKS)
        raise UsageError(
            f"no peak is known for device={device!r} at dtype={dtype}; the devices are {known}; "
            f"or choose another dtype"
        )
    if not 0 < mfu <= 1:
        raise UsageError(f"mfu={mfu} is not in (0, 1]; 0.4 is usual for a well-tuned training")
    seconds = flops / (peak * mfu)
    return Estimate(seconds, seconds / 3600 * price_per_hour)
