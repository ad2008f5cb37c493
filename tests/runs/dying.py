"""Lives of one run, each ended by kill -9, until the last one reaches the run's end.

python -m tests.runs.dying SHAPE TOKENS RUNS prints a JSON line for each death. All lives are
forked from this process, which has imported what they need and started no thread, so that one more
costs milliseconds.
"""

import json
import os
import random
import select
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401 - every optimizer imports it, in a second or two

from lmray.config import Run, override, run_id
from lmray.dataset import Splits, open_splits
from lmray.model.native import kernels
from lmray.runs.execute import execute
from lmray.training import checkpoint
from tests.small import small_run

KINDS = ("step", "write", "folder", "write")
"""By its step; by the n-th fsync of checkpoints; once n unfinished checkpoints have been seen."""
KILLS = {"narrow": 20, "wide": 8}
"""By the shape of the run: small_run's, or what two threads and a CPU's kernels compute."""
FSYNCS = 6
"""Of one checkpoint: its three files, its folder twice, and the folder above once it is renamed."""
LEASH = 7
"""Steps that a life may take: three checkpoints are begun, so that two are written."""


def long_run(tokens: Path, shape: str) -> Run:
    """More steps than all lives that are killed can take."""
    changes = {
        "budget.tokens": (KILLS[shape] * LEASH + 10) * 64,
        "execution.checkpoint_interval_steps": 2,
        "execution.keep_best": True,
    }
    if shape == "wide":  # heads of 32 for the attention kernel, halves of a batch for two threads
        changes |= {"model.d_model": 64, "model.num_layers": 2, "execution.threads": 2}
    return override(small_run(tokens), changes)


def kill_at_fsync(number: int) -> None:
    """Ends this process at the number-th fsync of the thread that writes checkpoints."""
    fsync, seen = os.fsync, []

    def counting(descriptor: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            seen.append(descriptor)
            if len(seen) == number:
                os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = counting


class Leash:
    """A report that stops the training for good after so many steps, and says so."""

    def __init__(self, steps: int, tell: int) -> None:
        self.steps, self.tell = steps, tell
        self.end = sys.maxsize

    def __call__(self, record: dict[str, Any]) -> None:
        if record["kind"] == "start":
            self.end = record["step"] + self.steps
        if record["step"] >= self.end:
            os.write(self.tell, b".")
            while True:
                signal.pause()


def live_and_die(run: Run, splits: Splits, runs: Path, kind: str, draw: random.Random) -> dict:
    """One life and its death; what was found then."""
    steps = draw.randint(0, LEASH) if kind == "step" else LEASH
    number = draw.randint(1, 2 * FSYNCS)
    checkpoints = runs / run_id(run, splits.digest) / "checkpoints"
    heard, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        if kind == "write":
            kill_at_fsync(number)
        in_child(lambda: execute(run, splits, runs, report=Leash(steps, tell)))
    os.close(tell)
    unfinished = f".step-*-{child}"
    seen: set[Path] = set()
    wanted = draw.randint(1, 3) if kind == "folder" else sys.maxsize
    while len(seen) < wanted and not select.select([heard], [], [], 0.0005)[0]:
        seen.update(checkpoints.glob(unfinished))
    told = os.read(heard, 1) if select.select([heard], [], [], 0)[0] else b""
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(heard)
    return {
        "kind": kind,
        "fsync": number,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "leashed": told == b".",
        "unfinished": [path.name for path in checkpoints.glob(unfinished)],
        "newest": [path.name for path in checkpoint.newest_first(checkpoints)[:1]],
    }


def in_child(work: Any) -> None:
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    shape, (tokens, runs) = sys.argv[1], map(Path, sys.argv[2:])
    run, splits, draw = long_run(tokens, shape), open_splits(tokens), random.Random(0)
    kernels()  # once, not in every life
    for number in range(KILLS[shape]):
        death = live_and_die(run, splits, runs, KINDS[number % len(KINDS)], draw)
        print(json.dumps(death), flush=True)
    execute(run, splits, runs, report=lambda record: None)


if __name__ == "__main__":
    main()
