"""The training loop: one function, alike for one process, a worker of several, a sweep's trial.

It does not know who called it: it is given a `report` callable for its records and an `interrupted`
callable that it asks after every step.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from lmray.accounting import step_flops
from lmray.config import BatchSchedule, Run
from lmray.dataset import Splits
from lmray.errors import PreflightError
from lmray.machine import freed_memory_kept
from lmray.model import TransformerLM
from lmray.training.budget import Meter
from lmray.training.clock import Clock
from lmray.training.device import (
    device_name,
    resolve_device,
    resolve_threads,
    set_determinism,
)
from lmray.training.gpu_share import keep_to_share
from lmray.training.measured import Window, forget_peak_memory, peak_memory_bytes
from lmray.training.precision import product_dtype
from lmray.training.saving import Saver
from lmray.training.schedules import learning_rate
from lmray.training.snapshot import START, Position
from lmray.training.worker import Worker

Record = dict[str, Any]
"""One line of metrics.jsonl, its `kind` train or validation, or of samples.jsonl, kind sample;
kind start tells which of an earlier life's lines are void."""

Report = Callable[[Record], None]

Sample = Callable[[TransformerLM], list[Record]]
"""What a model writes at an evaluation: records without their kind and place."""

Begin = Callable[[TransformerLM, Optimizer], Position]
"""What a run without a checkpoint of its own begins with: it may put another run's state into model
and optimizer, and returns where that one was."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    status: Literal["done", "diverged", "preempted"]
    step: int
    """Optimizer steps taken, over all lives of the run."""
    tokens: int
    """Training tokens seen."""
    seconds: float
    """Wall time spent, over all lives of the run."""


def never() -> bool:
    """An `interrupted` that lets the run go to its end."""
    return False


def anew(model: TransformerLM, optimizer: Optimizer) -> Position:
    """A `begin` that leaves the initial state as it is."""
    return START


def no_samples(model: TransformerLM) -> list[Record]:
    """A `sample` that writes nothing."""
    return []


def train(
    run: Run,
    splits: Splits,
    directory: Path,
    *,
    identity: dict[str, Any],
    report: Report,
    interrupted: Callable[[], bool] = never,
    sample: Sample = no_samples,
    begin: Begin = anew,
) -> Outcome:
    """Trains `run` to the end of its budget, from its newest checkpoint beneath `directory` if any,
    else from what `begin` puts in place.

    The first record, kind "start", says after which step this life begins; records that an earlier
    life made beyond it are void. A loss or gradient that is not finite, or a loss far above that of
    a uniform guess, ends the run before the optimizer step with status diverged; so does a final
    validation loss that is not finite, before the last checkpoint. When
    `interrupted()` is true after a step, a checkpoint is written and the status is preempted. What
    `sample` returns at each evaluation on the prefix is reported as records of kind "sample"; it
    must leave the model and torch's random generators as they are. Under torch.distributed every
    worker calls this and returns the same outcome; rank 0 writes.

    Raises PreflightError if the data does not fit the config or a checkpoint is of another one, and
    LmrayError if a checkpoint cannot be written.
    """
    check_data(run, splits)
    keep, best = run.execution.keep_checkpoints, run.execution.keep_best
    saving = Saver(directory, identity=identity, keep=keep, keep_best=best)
    with freed_memory_kept(), saving as saver:
        return _train(run, splits, saver, report, interrupted, sample, begin)


def _train(
    run: Run,
    splits: Splits,
    saver: Saver,
    report: Report,
    interrupted: Callable[[], bool],
    sample: Sample,
    begin: Begin,
) -> Outcome:
    begun = time.perf_counter()
    set_determinism(run.execution.deterministic)
    torch.set_num_threads(resolve_threads(run))
    keep_to_share(run.execution)
    peak_of = forget_peak_memory(resolve_device(run.execution.device))
    worker, meter = Worker(run, splits), Meter(run)
    start = saver.restore(worker.model, worker.optimizer)
    if start.step == 0:
        start = begin(worker.model, worker.optimizer)
    device = device_name(worker.device)
    dtype = product_dtype(run.optim.precision)
    clock = Clock(begun - start.seconds, device=device, dtype=dtype, workers=worker.world)
    batches = run.batches
    step = start.step
    parameters = sum(parameter.numel() for parameter in worker.model.parameters())
    facts = {"parameters": parameters, "compile_s": worker.compile_seconds, "device": device}
    begins = {"kind": "start", "step": step, "workers": worker.world, "peak_memory_of": peak_of}
    report({**begins, **facts})

    def elapsed() -> float:
        return worker.shared(clock.seconds()) if meter.timed else 0.0

    def reserve(evaluating: float, sampling: float, scored: int) -> None:
        ahead = evaluating * (1 + len(splits.valid) / scored) + sampling
        # The write before may be under way as long as they take, or longer: the last one waits.
        meter.reserve(worker.shared(max(ahead, saver.seconds) + saver.seconds))

    def evaluate_prefix() -> tuple[Record, list[Record]]:
        with clock.paused_rate() as evaluating:
            facts = worker.validate("prefix")
        with clock.paused_rate() as sampling:
            samples = sample(worker.model)
        if meter.timed:
            reserve(evaluating.seconds, sampling.seconds, facts["scored_tokens"])
        return facts, samples

    def validate(scope: Literal["prefix", "all"]) -> float | None:
        samples: list[Record] = []
        if scope == "prefix":
            facts, samples = evaluate_prefix()
        else:
            with clock.paused_rate():
                facts = worker.validate(scope)
        where = {"step": step, "tokens": batches.tokens(step)}
        for written in samples:
            report({"kind": "sample", **where, **written})
        heading = {"kind": "validation", "scope": scope, **where}
        report({**heading, **facts, "seconds": clock.seconds()})
        return facts["loss"]

    if step == 0:
        validate("prefix")
    elif meter.timed:
        evaluate_prefix()  # for what it takes
    window = Window(run)
    while step < meter.steps:
        now = elapsed()
        done, total = meter.position(step, now)
        lr = learning_rate(done, total, optim=run.optim)
        interval = run.execution.log_interval_steps
        logs = step == 0 or (step + 1) % interval == 0 or step + 1 == meter.steps
        window.add(worker.take_step(step, lr, compares=logs))
        shape = batches.shape(step)
        clock.count(shape.tokens, step_flops(run.model, shape))
        step += 1
        if meter.timed:
            worker.keep_pace()
        after = elapsed()
        meter.took(after - now)
        last = meter.ends(step, after)
        logs = logs or last
        evaluates = last or evaluates_after(step, batches, run.evaluation.interval_tokens)
        saves = last or step % run.execution.checkpoint_interval_steps == 0
        asks = worker.waits or logs or evaluates or saves
        diverged = window.first_diverged() if asks else None
        if logs or diverged:
            step = diverged.step if diverged else step
            where = {"kind": "train", "step": step, "tokens": batches.tokens(step)}
            shape = batches.shape(step - 1)
            size = {"sequences": shape.sequences, "length": shape.length}
            rates = {**clock.rates(), "seconds": clock.seconds()}
            memory = {
                "micro_batch": worker.micro_batch,
                "peak_memory_bytes": peak_memory_bytes(worker.device),
            }
            progress = {"progress": done / total}
            report({**where, **progress, **size, **window.close(), **rates, **memory})
        if diverged:
            return Outcome("diverged", step, batches.tokens(step), clock.seconds())
        if evaluates:
            saves = saver.improves(step, validate("prefix")) or saves
            last = meter.ends(step, elapsed())
        if last and validate("all") is None:
            return Outcome("diverged", step, batches.tokens(step), clock.seconds())
        stop = (asks or step % worker.agrees_every == 0) and worker.agree(interrupted())
        # What diverged unseen before the stop is not saved: the next life will meet it again.
        if last or saves or (stop and window.first_diverged() is None):
            with clock.paused_rate():
                worker.save(saver, step, clock.seconds())
                if last or stop:
                    saver.wait()
        if last:
            break
        if stop:
            return Outcome("preempted", step, batches.tokens(step), clock.seconds())
    return Outcome("done", step, batches.tokens(step), clock.seconds())


def evaluates_after(step: int, batches: BatchSchedule, interval: int) -> bool:
    """Whether `step` is the first to reach another multiple of `interval` tokens."""
    return batches.tokens(step) // interval > batches.tokens(step - 1) // interval


def check_data(run: Run, splits: Splits) -> None:
    """Refuses a dataset that the run cannot use, before anything is built.

    Raises PreflightError naming both numbers.
    """
    if run.model.vocab_size != splits.tokenizer.vocab_size:
        raise PreflightError(
            f"model.vocab_size={run.model.vocab_size}, but the tokenizer of {splits.directory} has "
            f"{splits.tokenizer.vocab_size} ids; set model.vocab_size={splits.tokenizer.vocab_size}"
        )
    if len(splits.valid) <= run.model.context_length:
        raise PreflightError(
            f"the validation split of {splits.directory} has {len(splits.valid)} tokens and one "
            f"window needs {run.model.context_length + 1}; use more validation text or a smaller "
            f"model.context_length"
        )
