"""What a sweep will take, said and agreed to before it starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmray.dataset import Splits
    from lmray.sweeps.price import Price
    from lmray.sweeps.space import Space


@dataclass(frozen=True)
class Agreement:
    """What the user has said about the price."""

    max_hours: float
    yes: bool
    tokens_per_s: float
    """As stated; 0 to measure."""
    max_disk_gb: float
    at_once: int
    """Trials, as stated; 0 for those that this machine has room for."""


def checked_data(space: "Space") -> "Splits":
    """The token dataset of a space, once it is known to fit all trials.

    Raises PreflightError if it does not.
    """
    from lmray.dataset import open_splits
    from lmray.training.loop import check_data

    splits = open_splits(space.base.data.tokens)
    for _, trial in space.runs():
        check_data(trial, splits)
    return splits


def priced(space: "Space", splits: "Splits", tokens_per_s: float, at_once: int) -> "Price":
    """The price at the speed and trials at once that are given, or those of this machine for 0.

    The speed is that of a few steps of the base.
    """
    from lmray.cli.show import err
    from lmray.sweeps.price import price
    from lmray.sweeps.speed import Measured, measured, trials_at_once
    from lmray.training.device import device_at_hand

    seen = Measured(tokens_per_s, gpu_bytes=0)
    if not tokens_per_s:
        err.print("price: timing a few steps of the base here (or say --tokens-per-s)")
        seen = measured(space.base, splits.directory)
    execution = space.base.execution
    places = at_once or trials_at_once(execution, space.process_memory())
    on_cpu = execution.device != "cuda" and device_at_hand(execution.device).type == "cpu"
    return price(space, len(splits.valid), at_once=places, on_cpu=on_cpu, **vars(seen))


def agree(space: "Space", directory: Path, said: Agreement) -> None:
    """Tells the price of a sweep that has none yet, refuses it beyond the limits, claims it.

    What is not tried is listed with its reason.
    """
    from lmray.cli.show import err
    from lmray.sweeps.axes import spoken
    from lmray.sweeps.price import check_price, read_price, write_price
    from lmray.sweeps.sweep_directory import claim
    from lmray.training.gpu_share import check_share

    splits = checked_data(space)
    if (directory / "sweep.json").exists():
        claim(directory, space, splits.digest)
        if read_price(directory) is not None:
            return
    for each in space.refusals():
        err.print(f"not tried: {spoken(each.combination)}: {each.reason}", markup=False)
    asked = priced(space, splits, said.tokens_per_s, said.at_once)
    err.print(f"price: {asked.sentence()}", markup=False, soft_wrap=True)
    if not said.yes:
        check_price(asked, directory, max_hours=said.max_hours, max_disk_gb=said.max_disk_gb)
        check_share(space.base.execution, asked.gpu_bytes or asked.memory_bytes)
    claim(directory, space, splits.digest)
    write_price(directory, asked)
