"""What devices can do at most, and how long and dear a training is at a share of that."""

import re
from dataclasses import dataclass
from typing import Literal

from lmray.errors import UsageError

DType = Literal["fp32", "tf32", "bf16"]

# TFLOP/s of dense products, from NVIDIA's data sheets (those "with sparsity" are twice as much).
# By a pattern for torch.cuda.get_device_name(); the first that is found counts.
_PEAKS: dict[str, dict[DType, float]] = {
    "H100 PCIe": {"fp32": 51, "tf32": 378, "bf16": 756},
    "H100 NVL": {"fp32": 60, "tf32": 417.5, "bf16": 835},
    "GH200|H200|H100": {"fp32": 67, "tf32": 494.5, "bf16": 989},
    "B200": {"fp32": 75, "tf32": 1100, "bf16": 2250},
    "A100": {"fp32": 19.5, "tf32": 156, "bf16": 312},
    "L40S": {"fp32": 91.6, "tf32": 183, "bf16": 362},
    "L4": {"fp32": 30.3, "tf32": 60, "bf16": 121},
    "A10": {"fp32": 31.2, "tf32": 62.5, "bf16": 125},
    "RTX 3090": {"fp32": 35.6, "tf32": 35.6, "bf16": 71},
    "RTX 4090": {"fp32": 82.6, "tf32": 82.6, "bf16": 165.2},
    "V100": {"fp32": 15.7},
    "T4": {"fp32": 8.1},
}


def peak_flops(device: str, dtype: DType) -> float | None:
    """FLOP/s of `device` at most, or None for a device or dtype that the table does not have.

    `device` is what torch calls it or a part of that, as "H100". A slice of a GPU and a laptop's
    namesake of one are other devices.
    """
    if re.search(r"\b(MIG|Laptop|Max-Q)\b", device):
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
