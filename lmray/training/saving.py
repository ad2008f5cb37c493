"""Checkpoints written while the training goes on: it waits for a copy in memory, not for the disk.

One write at a time: a run holds one copy of its state, whatever the disk's speed.
"""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lmray import remote
from lmray.errors import LmrayError
from lmray.training import checkpoint
from lmray.training.snapshot import Best, Position, Snapshot, take

logger = logging.getLogger(__name__)

_BYTES_PER_S = 2e8
"""What a disk is held to write before a checkpoint has been timed."""


class Saver:
    """A run's checkpoints: restored from, written by a thread, kept or removed.

    What the thread fails with is raised by the next `save` or `wait`, or at the end of the `with`
    block, which does not end before the write under way has.
    """

    def __init__(
        self, directory: Path, *, identity: Mapping[str, Any], keep: int, keep_best: bool
    ) -> None:
        """Of the checkpoints in `directory` the `keep` newest stay, and the best where asked."""
        self._directory, self._identity = directory, identity
        self._keep, self._keep_best = keep, keep_best
        self._best: Best | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lmray-checkpoint")
        self._under_way: list[Future[None]] = []
        self.seconds = 0.0
        """What a checkpoint takes from its copy to its rename: the last one's, or an estimate."""

    def restore(self, model: nn.Module, optimizer: Optimizer) -> Position:
        """Puts the newest whole checkpoint back and returns where it is; see restore_latest."""
        found = checkpoint.restore_latest(
            self._directory, model, optimizer, identity=self._identity
        )
        self._best = found.best if self._keep_best else None
        # Weights and two moments.
        self.seconds = 12 * sum(p.numel() for p in model.parameters()) / _BYTES_PER_S
        return found

    def improves(self, step: int, loss: float | None) -> bool:
        """Whether the validation loss after `step` makes its weights the best, to be saved.

        None is a loss that is not finite.
        """
        if not self._keep_best or loss is None:
            return False
        if self._best is not None and loss >= self._best.loss:
            return False
        self._best = Best(step, loss)
        return True

    def save(
        self, step: int, tokens: int, seconds: float, model: nn.Module, optimizer: Optimizer
    ) -> None:
        """Copies the run's state and has it written; waits for the write before.

        Raises what that write failed with: LmrayError if the disk is full or refuses.
        """
        self.wait()
        begun = time.perf_counter()
        position = Position(step, tokens, seconds, self._best)
        snapshot = take(position, model, optimizer, self._identity)
        self._under_way.append(self._thread.submit(self._write, snapshot, begun))

    def _write(self, snapshot: Snapshot, begun: float) -> None:
        checkpoint.write(self._directory, snapshot)
        best = snapshot.position.best
        checkpoint.prune(self._directory, self._keep, spare=() if best is None else (best.step,))
        # With what the run has measured up to here: whoever goes on from it cuts off what is later.
        remote.publish(self._directory.parent)
        self.seconds = time.perf_counter() - begun

    def wait(self) -> None:
        """Returns once all that was saved is on disk; raises as `save`."""
        while self._under_way:
            self._under_way.pop().result()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True)
        try:
            self.wait()
        except LmrayError as failed:
            if error is None:
                raise
            logger.warning("%s", failed)  # the run ends for another reason
