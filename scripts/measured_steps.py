"""A training's steps on one device: their speed, the memory they take, what costs most in them."""

import re
import time
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, _ExperimentalConfig, profile

from lmray.accounting import step_flops
from lmray.config import Run
from lmray.dataset import Splits
from lmray.errors import LmrayError
from lmray.training.clock import Clock
from lmray.training.device import (
    device_name,
    give_memory_back,
    resolve_device,
    resolve_threads,
    set_determinism,
)
from lmray.training.measured import forget_peak_memory, measure, peak_memory_bytes
from lmray.training.precision import product_dtype
from lmray.training.schedules import learning_rate
from lmray.training.worker import Worker

STRETCHES, PROFILED, COSTS, LONGEST = 3, 3, 3, 64

Facts = dict[str, Any]


class Training:
    """A run's worker and how far it is."""

    def __init__(self, run: Run, splits: Splits) -> None:
        self.run, self.step = run, 0
        give_memory_back()  # what an earlier training held
        set_determinism(run.execution.deterministic)
        torch.set_num_threads(resolve_threads(run))
        forget_peak_memory(resolve_device(run.execution.device))
        self.worker = Worker(run, splits)
        self.device = self.worker.device

    def take(self, steps: int) -> None:
        """Takes steps, the first of a run with its comparisons as in `train`; waits for the last.

        Raises LmrayError if one diverged.
        """
        taken = []
        for _ in range(steps):
            lr = learning_rate(self.step + 1, self.run.steps, optim=self.run.optim)
            taken.append(self.worker.take_step(self.step, lr, compares=self.step == 0))
            self.step += 1
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        for step in measure(taken, self.run):
            if step.diverged:
                raise LmrayError(f"diverged at step {step.step}")


def speed(training: Training, steps: int) -> Facts:
    """Rates of the median of three stretches of `steps`, tokens/s and TFLOP/s; memory in bytes."""
    run, worker, rates = training.run, training.worker, []
    name, dtype = device_name(training.device), product_dtype(run.optim.precision)
    shape = run.batches.shape(0)
    for _ in range(STRETCHES):
        clock = Clock(time.perf_counter(), device=name, dtype=dtype, workers=1)
        training.take(steps)
        clock.count(steps * shape.tokens, steps * step_flops(run.model, shape))
        rates.append(clock.rates())
    rates.sort(key=lambda rate: rate["tokens_per_s"])
    return {
        "parameters": sum(parameter.numel() for parameter in worker.model.parameters()),
        "tokens_per_step": shape.tokens,
        **rates[STRETCHES // 2],
        "slowest_and_fastest": [rates[0]["tokens_per_s"], rates[-1]["tokens_per_s"]],
        "peak_memory_bytes": peak_memory_bytes(training.device),
        "micro_batch": worker.micro_batch,
        "compile_s": worker.compile_seconds,
    }


def costs(training: Training) -> list[Facts]:
    """The largest costs, each with its share of the time of all."""
    on_gpu = training.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    threads = _ExperimentalConfig(profile_all_threads=not on_gpu)
    with profile(activities=activities, experimental_config=threads) as profiled:
        training.take(PROFILED)
    of_device = DeviceType.CUDA if on_gpu else DeviceType.CPU
    times = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in profiled.key_averages()
        # What is annotated on a GPU are spans of kernels.
        if event.device_type == of_device and not (on_gpu and event.is_user_annotation)
    }
    largest = sorted(times, key=lambda name: times[name], reverse=True)[:COSTS]
    whole = sum(times.values())
    return [{"name": shortened(name), "share": times[name] / whole} for name in largest]


def shortened(name: str) -> str:
    """A kernel's name without its namespaces, cut at its end."""
    if not name.startswith("aten::"):
        name = re.sub(r"^void |\(anonymous namespace\)::|\b[a-z_]\w*::", "", name)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."
