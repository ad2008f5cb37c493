"""Weights & Biases and TensorBoard, off unless the config asks for them.

metrics.jsonl is written in any case; nothing a tracker does holds a training up or ends it.
"""

import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from lmray.config import Run, flatten
from lmray.errors import PreflightError

logger = logging.getLogger(__name__)

_PATIENCE_S = 30.0
"""How long the end of a run waits for what its trackers have not sent yet."""

_MOST_WAITING = 10_000
"""Records that may wait for a tracker before it counts as stuck."""


class Tracker(Protocol):
    """Where records go beside metrics.jsonl."""

    def __call__(self, record: dict[str, Any]) -> None:
        """Takes a record of any kind."""

    def close(self, status: str) -> None:
        """Ends the run there."""


def check_tracking(run: Run) -> None:
    """Refuses trackers that cannot begin, before the run does.

    Raises PreflightError if one's package is missing, or W&B's key.
    """
    if run.tracking.wandb == "online":
        import wandb

        try:
            wandb.login(verify=False)  # asks for a key on a terminal; connects to nothing
        except wandb.Error as error:
            raise PreflightError(
                f"tracking.wandb=online: {error} Or set tracking.wandb=offline"
            ) from None
    if run.tracking.tensorboard:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError:
            raise PreflightError(
                "tracking.tensorboard=true, but the package tensorboard is not installed; "
                "pip install 'lmray[tensorboard]', or set tracking.tensorboard=false"
            ) from None


def open_trackers(run: Run, run_id: str, directory: Path, *, group: str) -> "list[Background]":
    """The trackers that tracking asks for, for the run of that directory."""
    trackers = []
    if run.tracking.wandb != "off":
        trackers.append(
            Background(
                "W&B",
                lambda _: WandbTracker(run, run_id, directory, group=group),
                patience_s=_PATIENCE_S,
            )
        )
    if run.tracking.tensorboard:
        trackers.append(
            Background(
                "TensorBoard",
                lambda step: TensorBoardTracker(directory, step),
                patience_s=_PATIENCE_S,
            )
        )
    return trackers


class Background:
    """Feeds a tracker from a thread; one that fails or hangs is dropped, with one warning."""

    def __init__(self, name: str, begin: Callable[[int], Tracker], *, patience_s: float) -> None:
        """`begin` makes the tracker of a life that goes on from a step, in the thread too."""
        self._name, self._begin, self._patience_s = name, begin, patience_s
        self._waiting: queue.Queue[dict[str, Any] | str] = queue.Queue(_MOST_WAITING)
        self._dropped = threading.Event()
        self._thread = threading.Thread(target=self._feed, name=f"lmray-{name}", daemon=True)
        self._thread.start()

    def __call__(self, record: dict[str, Any]) -> None:
        """Hands a record over."""
        self._put(record)

    def close(self, status: str) -> None:
        """Lets the tracker end the run, and waits for it no longer than its patience."""
        self._put(status)
        if not self._dropped.is_set():
            self._thread.join(self._patience_s)
        if self._thread.is_alive():
            self._drop(f"it has not ended after {self._patience_s:g} s")

    def _put(self, item: dict[str, Any] | str) -> None:
        if self._dropped.is_set():
            return
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self._drop(f"{_MOST_WAITING:,} records wait for it")

    def _feed(self) -> None:
        tracker = None
        try:
            while not self._dropped.is_set():
                item = self._waiting.get()
                if isinstance(item, str):
                    if tracker is not None:
                        tracker.close(item)
                    return
                if tracker is None:
                    tracker = self._begin(item["step"])
                tracker(item)
        except Exception as error:  # whatever it is, the training is worth more
            self._drop(f"{type(error).__name__}: {' '.join(str(error).split())}")

    def _drop(self, reason: str) -> None:
        if not self._dropped.is_set():
            self._dropped.set()
            logger.warning(
                "%s is dropped: %s; the run goes on and metrics.jsonl has everything",
                self._name,
                reason,
            )


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    """What of a train or validation record can be drawn, its step aside, under its kind."""
    prefix = record["kind"] if record["kind"] == "train" else f"{record['kind']}/{record['scope']}"
    return {
        f"{prefix}/{key}": value
        for key, value in record.items()
        if isinstance(value, int | float) and key != "step"
    }


class WandbTracker:
    """Sends records to Weights & Biases, run for run; what is offline is sent with `wandb sync`."""

    def __init__(self, run: Run, run_id: str, directory: Path, *, group: str) -> None:
        import wandb  # costs a second; only runs that are tracked pay it

        self._run = wandb.init(
            project=run.tracking.project,
            id=run_id,
            name=f"{group}-{run_id}" if group else run_id,
            group=group or None,
            config=flatten(run),
            dir=str(directory),
            mode="online" if run.tracking.wandb == "online" else "offline",
            # An online run goes on under its id, and takes no step twice; offline, each life is a
            # folder of its own to sync.
            resume="allow" if run.tracking.wandb == "online" else None,
            settings=wandb.Settings(
                silent=True,
                console="off",
                x_disable_stats=True,
                # Its own limits; without them its process would hold up the interpreter's end.
                init_timeout=_PATIENCE_S / 2,
                finish_timeout=_PATIENCE_S / 2,
            ),
        )

    def __call__(self, record: dict[str, Any]) -> None:
        """Logs a train or validation record under its kind, against tokens."""
        if record["kind"] != "start":
            self._run.log({**_numbers(record), "tokens": record["tokens"]}, step=record["step"])

    def close(self, status: str) -> None:
        """Says how the run ended."""
        self._run.summary["status"] = status
        self._run.finish(exit_code=1 if status in ("failed", "out_of_memory") else 0)


class TensorBoardTracker:
    """Writes tensorboard/ beneath the run's directory; each life of the run adds a file."""

    def __init__(self, directory: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # TensorBoard, like metrics.jsonl, forgets what an earlier life wrote beyond `step`.
        void = step + 1 if step else 0
        self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=void)

    def __call__(self, record: dict[str, Any]) -> None:
        """Writes a train or validation record under its kind, against steps."""
        if record["kind"] == "start":
            return
        for key, value in _numbers(record).items():
            self._writer.add_scalar(key, value, record["step"])
        self._writer.flush()

    def close(self, status: str) -> None:
        """Brings everything to the disk."""
        self._writer.add_text("status", status)
        self._writer.close()
