"""How fast a run trains on this machine, and what of a GPU it takes, from a few timed steps."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from lmray.config import Execution, Run, override
from lmray.dataset import open_splits
from lmray.errors import PreflightError
from lmray.machine import available_cores, total_memory
from lmray.sweeps.places import Node, demand, room
from lmray.training.device import resolve_device
from lmray.training.worker import Worker

_SECONDS = 2.0
_OBJECT_STORE = 0.3
"""Of a machine's memory, which Ray keeps for its object store and gives to no trial."""

_CPU_BATCH = 16
"""Sequences are as fast by the dozen on a CPU, and a step of many takes minutes there."""


@dataclass(frozen=True)
class Measured:
    """What a few steps of a run were seen to take."""

    tokens_per_s: float
    """Training tokens of one trial, without evaluations."""
    gpu_bytes: int
    """The most that torch held of a GPU's memory, CUDA's context aside; 0 on a CPU."""


def trials_at_once(execution: Execution, memory: int) -> int:
    """Trials that this machine has room for, with `memory` bytes a process on a CPU; at least 1.

    So a sweep for which it has none takes at most as long as its trials one after the other.
    """
    left = total_memory() * (1 - _OBJECT_STORE)
    here = Node("this machine", available_cores(), torch.cuda.device_count(), left)
    return max(1, room(demand(execution, [here], memory), [here]) // execution.workers)


def measured(run: Run, tokens: Path) -> Measured:
    """What one trial of `run` takes on the token dataset.

    Takes about two seconds once the first step is done. On a CPU a worker has one thread unless
    the run says more, as it has in a sweep. On a GPU all its memory may be used, and is given back.

    Raises PreflightError if the run asks for a GPU and there is none here.
    """
    if run.execution.device == "cuda" and not torch.cuda.is_available():
        raise PreflightError(
            "execution.device=cuda, and the price is of a few steps timed here, where torch sees "
            "no CUDA device; say --tokens-per-s, the speed of one trial where it will run, or set "
            "execution.device=cpu"
        )
    if resolve_device(run.execution.device).type == "cpu":
        return _measure(run, tokens)
    # Torch keeps a context on the GPU for as long as its process lives.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_measure, run, tokens).result()


def _measure(run: Run, tokens: Path) -> Measured:
    workers, threads = run.execution.workers, torch.get_num_threads()
    sequences = run.sequences_per_step // workers
    on_cpu = resolve_device(run.execution.device).type == "cpu"
    alone = override(
        run,
        {
            "data.batch_unit": "sequences",
            "data.batch_ramp": (),
            "data.length_ramp": (),
            "data.batch_size": min(sequences, _CPU_BATCH) if on_cpu else sequences,
            "execution.workers": 1,
            "execution.compile": "off",
        },
    )
    torch.set_num_threads(1 if run.execution.threads == "auto" else run.execution.threads)
    try:
        worker = Worker(alone, open_splits(tokens))
        step = 0

        def take() -> None:
            nonlocal step
            worker.take_step(step, 0.0, compares=False).loss_and_norm.tolist()  # waits for a GPU
            step += 1

        take()
        begun, first = time.perf_counter(), step
        while time.perf_counter() - begun < _SECONDS:
            take()
        taken = (step - first) * alone.sequences_per_step * alone.model.context_length
        rate = workers * taken / (time.perf_counter() - begun)
        return Measured(rate, 0 if on_cpu else torch.cuda.max_memory_reserved(worker.device))
    finally:
        torch.set_num_threads(threads)
