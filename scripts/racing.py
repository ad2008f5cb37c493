"""Running contestants in turns, so that what else the machine does falls on all of them."""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Contestants = Mapping[str, Callable[[], Any]]
"""What each does by its name; the first is ours."""


def medians(contestants: Contestants, rounds: int) -> dict[str, float]:
    """Each contestant's median seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            begun = time.perf_counter()
            run()
            if turn:  # the first only warms up
                seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(each) for name, each in seconds.items()}


def print_ratios(found: Mapping[str, float], unit: Callable[[float], str]) -> None:
    """Prints each contestant's median, and how many times as fast the first is."""
    first = next(iter(found.values()))
    for name, median in found.items():
        ratio = median / first
        print(f"    {name:36} {unit(median):>14}   lmray is {ratio:6.2f} times as fast", flush=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Drops what a library prints past Python."""
    kept = os.dup(1), os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            for number, descriptor in enumerate(kept, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)
