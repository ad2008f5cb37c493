"""The training loop: one function, alike for one process, a worker of several, a sweep's trial.

It does not know who called it: it is given a `report` callable for its records and an `interrupted`
callable that it asks after every step.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from lmray.config import Run
from lmray.dataset import Splits
from lmray.errors import PreflightError
from lmray.model import TransformerLM
from lmray.training import checkpoint
from lmray.training.budget import Meter
from lmray.training.device import resolve_threads
from lmray.training.measured import Window, peak_memory_bytes
from lmray.training.schedules import learning_rate
from lmray.training.worker import Worker

Record = dict[str, Any]
"""One line of metrics.jsonl, its `kind` train or validation, or of samples.jsonl, kind sample;
kind start tells which of an earlier life's lines are void."""

Report = Callable[[Record], None]

Sample = Callable[[TransformerLM], list[Record]]
"""What a model writes at an evaluation: records without their kind and place."""


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


_BYTES_PER_S = 2e8
"""What a disk is held to write before a checkpoint has been timed."""


def never() -> bool:
    """An `interrupted` that lets the run go to its end."""
    return False


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
) -> Outcome:
    """Trains `run` to the end of its budget, from its newest checkpoint beneath `directory` if any.

    The first record, kind "start", says after which step this life begins; records that an earlier
    life made beyond it are void. A loss or gradient that is not finite, or a loss far above that of
    a uniform guess, ends the run before the optimizer step with status diverged. When
    `interrupted()` is true after a step, a checkpoint is written and the status is preempted. What
    `sample` returns at each evaluation on the prefix is reported as records of kind "sample"; it
    must leave the model and torch's random generators as they are. Under torch.distributed every
    worker calls this and returns the same outcome; rank 0 writes.

    Raises PreflightError if the data does not fit the config or a checkpoint is of another one.
    """
    begun = time.perf_counter()
    check_data(run, splits)
    torch.set_num_threads(resolve_threads(run))
    worker, meter = Worker(run, splits), Meter(run)
    start = checkpoint.restore_latest(directory, worker.model, worker.optimizer, identity=identity)
    clock = _Clock(begun - start.seconds)
    step = start.step
    parameters = sum(parameter.numel() for parameter in worker.model.parameters())
    saving = 12 * parameters / _BYTES_PER_S
    facts = {"parameters": parameters, "compile_s": worker.compile_seconds}
    report({"kind": "start", "step": step, **facts, "workers": worker.world})

    def elapsed() -> float:
        return worker.shared(clock.seconds()) if meter.timed else 0.0

    def evaluate_prefix() -> tuple[Record, list[Record]]:
        with clock.paused_rate() as pause:
            facts = worker.validate("prefix")
        with clock.paused_rate() as writing:
            samples = sample(worker.model)
        if meter.timed:
            whole = pause.seconds * len(splits.valid) / facts["scored_tokens"]
            ending = pause.seconds + writing.seconds + whole + saving
            meter.reserve(worker.shared(ending))
        return facts, samples

    def validate(scope: Literal["prefix", "all"]) -> None:
        samples: list[Record] = []
        if scope == "prefix":
            facts, samples = evaluate_prefix()
        else:
            with clock.paused_rate():
                facts = worker.validate(scope)
        where = {"step": step, "tokens": step * run.tokens_per_step}
        for written in samples:
            report({"kind": "sample", **where, **written})
        heading = {"kind": "validation", "scope": scope, **where}
        report({**heading, **facts, "seconds": clock.seconds()})

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
        step += 1
        clock.count(run.tokens_per_step)
        after = elapsed()
        meter.took(after - now)
        last = meter.ends(step, after)
        logs = logs or last
        evaluates = last or evaluates_after(step, run)
        saves = last or step % run.execution.checkpoint_interval_steps == 0
        asks = worker.waits or logs or evaluates or saves
        diverged = window.first_diverged() if asks else None
        if logs or diverged:
            step = diverged.step if diverged else step
            where = {"kind": "train", "step": step, "tokens": step * run.tokens_per_step}
            rate = {"tokens_per_s": clock.tokens_per_s(), "seconds": clock.seconds()}
            memory = {
                "micro_batch": worker.micro_batch,
                "peak_memory_bytes": peak_memory_bytes(worker.device),
            }
            report({**where, "progress": done / total, **window.close(), **rate, **memory})
        if diverged:
            return Outcome("diverged", step, step * run.tokens_per_step, clock.seconds())
        if evaluates:
            validate("prefix")
            last = meter.ends(step, elapsed())
        if last:
            validate("all")
        stop = worker.agree(interrupted())
        # What diverged unseen before the stop is not saved: the next life will meet it again.
        if last or saves or (stop and window.first_diverged() is None):
            with clock.paused_rate() as pause:
                worker.save(directory, step, clock.seconds(), identity)
            saving = pause.seconds
        if last:
            break
        if stop:
            return Outcome("preempted", step, step * run.tokens_per_step, clock.seconds())
    return Outcome("done", step, step * run.tokens_per_step, clock.seconds())


@dataclass
class _Pause:
    seconds: float = 0.0


class _Clock:
    """Seconds over all lives of the run, and the rate of training alone since the last record."""

    def __init__(self, begun: float) -> None:
        self._begun = begun
        self._reset()

    def _reset(self) -> None:
        self._mark = time.perf_counter()
        self._tokens = 0

    def seconds(self) -> float:
        return time.perf_counter() - self._begun

    def count(self, tokens: int) -> None:
        self._tokens += tokens

    def tokens_per_s(self) -> float:
        rate = self._tokens / (time.perf_counter() - self._mark)
        self._reset()
        return rate

    @contextmanager
    def paused_rate(self) -> Iterator[_Pause]:
        """Keeps the block, an evaluation or a checkpoint, out of the rate, and times it."""
        pause, begun = _Pause(), time.perf_counter()
        yield pause
        pause.seconds = time.perf_counter() - begun
        self._mark += pause.seconds


def evaluates_after(step: int, run: Run) -> bool:
    """Whether `step` is the first to reach another multiple of the evaluation interval."""
    interval, per_step = run.evaluation.interval_tokens, run.tokens_per_step
    return step * per_step // interval > (step - 1) * per_step // interval


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
