"""What losses others have reported for lmray's presets, to set a finished run against.

The numbers are of public write-ups of the coursework that the presets are from; those are of one
seed, validated on few batches, so a band is a few hundredths wider than what they say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Band:
    """The final validation losses to be expected of a preset at its budget."""

    preset: str
    low: float
    """Nats a token."""
    high: float
    source: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What a run of it has that the preset has not, by dotted key."""
    hardware: str = ""
    """What the name of the hardware must contain, where the budget is in seconds."""

    def holds(self, loss: float) -> bool:
        """Whether a loss lies inside."""
        return self.low <= loss <= self.high


BANDS = (
    Band("base_ts", 1.36, 1.45, "1.379 (rate 5e-3), 1.392 (3e-3) and 1.43 reported"),
    Band("a_ts", 1.32, 1.41, "1.349 (rate 2e-3), 1.350 (3e-3) and 1.377 (1e-3) reported"),
    Band("a_owt_tied", 3.70, 3.78, "3.738 reported"),
    Band("base_owt", 3.80, 4.05, "4.03 reported, 3.799 of a model of 58.5 M parameters"),
    Band(
        "base_owt",
        3.08,
        3.50,
        "an hour and a half on an H100, validated at context 512: 3.268 by AdamW and 3.166 by Muon "
        "reported, the board's best 3.078",
        changes={"model.context_length": 512, "budget.seconds": 5400.0},
        hardware="H100",
    ),
)
