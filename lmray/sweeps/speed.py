"""How fast a run trains on this machine, from a few timed steps."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from lmray.config import Run, override
from lmray.dataset import open_splits
from lmray.training.device import resolve_device
from lmray.training.worker import Worker

_SECONDS = 2.0
_CPU_BATCH = 16
"""Sequences are as fast by the dozen on a CPU, and a step of many takes minutes there."""


def trials_at_once(run: Run) -> int:
    """Trials of `run` that this machine has room for at a time: a GPU each, or a core."""
    from lmray.machine import available_cores

    on_gpu = resolve_device(run.execution.device).type == "cuda"
    places = torch.cuda.device_count() if on_gpu else available_cores()
    return max(1, places // run.execution.workers)


def measured_tokens_per_s(run: Run, tokens: Path) -> float:
    """Training tokens a second of one trial of `run` on the token dataset, without evaluations.

    Takes about two seconds once the first step is done. On a CPU a worker has one thread unless
    the run says more, as it has in a sweep. The memory of a GPU is given back.
    """
    if resolve_device(run.execution.device).type == "cpu":
        return _measure(run, tokens)
    # Torch keeps a context on the GPU for as long as its process lives.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_measure, run, tokens).result()


def _measure(run: Run, tokens: Path) -> float:
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
        return workers * taken / (time.perf_counter() - begun)
    finally:
        torch.set_num_threads(threads)
