"""A run's time: over all its lives, and the rates of training alone since the last record."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lmray.accounting import DType, mfu


@dataclass
class Pause:
    """A block that was timed."""

    seconds: float = 0.0


class Clock:
    """Seconds since `begun`, as time.perf_counter() has them, and what was trained in them."""

    def __init__(self, begun: float, *, device: str, dtype: DType, workers: int) -> None:
        """`workers` devices of that name, as torch calls them, multiply in `dtype`."""
        self._begun = begun
        self._device, self._dtype, self._workers = device, dtype, workers
        self._reset()

    def _reset(self) -> None:
        self._mark = time.perf_counter()
        self._tokens = self._flops = 0

    def seconds(self) -> float:
        """Wall time spent."""
        return time.perf_counter() - self._begun

    def count(self, tokens: int, flops: int) -> None:
        """Notes a step: its training tokens, its floating-point operations."""
        self._tokens += tokens
        self._flops += flops

    def rates(self) -> dict[str, float | None]:
        """Tokens/s, TFLOP/s and MFU of all workers together since the last call; begins anew.

        MFU (Chowdhery et al. 2022) is None for a device whose peak is not known.
        """
        seconds = time.perf_counter() - self._mark
        per_s = self._flops / seconds
        found = {
            "tokens_per_s": self._tokens / seconds,
            "tflop_per_s": per_s / 1e12,
            "mfu": mfu(per_s / self._workers, self._device, self._dtype),
        }
        self._reset()
        return found

    @contextmanager
    def paused_rate(self) -> Iterator[Pause]:
        """Keeps the block, an evaluation or a checkpoint, out of the rates, and times it."""
        pause, begun = Pause(), time.perf_counter()
        yield pause
        pause.seconds = time.perf_counter() - begun
        self._mark += pause.seconds
