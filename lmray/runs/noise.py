"""The gradient noise scale of a run at its checkpoints, kept in its noise_scale.json."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lmray.dataset import BatchSampler
from lmray.errors import CorruptionError
from lmray.progress import Progress, silent
from lmray.runs.run_directory import RunDirectory
from lmray.runs.trained import Trained, load_trained, open_data
from lmray.storage import read_json, write_json
from lmray.training import checkpoint
from lmray.training.chunked_loss import mean_cross_entropy
from lmray.training.measured import finite
from lmray.training.noise_scale import NoiseScale, noise_scale
from lmray.training.precision import autocast

logger = logging.getLogger(__name__)


def measure_noise(
    directory: RunDirectory, *, batches: int, sequences: int, progress: Progress = silent
) -> dict[str, Any]:
    """Measures it from `batches` batches of `sequences` each; JSON, also left in the directory.

    The batches are those that the run would have drawn next, which its weights have not seen. A
    damaged checkpoint is passed over. The gradients of all batches are in memory at once, twice.

    Raises PreflightError if the run has no checkpoint or its data has changed, and UsageError for
    too few batches.
    """
    found = checkpoint.select(directory.checkpoints, "latest")[::-1]
    splits, rows = open_data(directory), []
    for number, path in enumerate(found):
        try:
            trained = load_trained(directory, str(checkpoint.step_of(path)))
        except CorruptionError as error:
            logger.warning("passing over a checkpoint: %s", error)
            continue
        context = trained.run.model.context_length
        sampler = BatchSampler(splits.train, sequences, context, trained.run.seed)

        def told(done: int, number: int = number) -> None:
            progress("noise scale", number * batches + done, len(found) * batches, "batches")

        measured = _measure(trained, sampler, batches, told)
        rows.append(_row(trained, measured, context))
    facts = {
        "run": directory.path.name,
        "batches": batches,
        "sequences": sequences,
        "checkpoints": rows,
    }
    write_json(directory.path / "noise_scale.json", facts)
    return facts


def _measure(
    trained: Trained, sampler: BatchSampler, batches: int, told: Callable[[int], None]
) -> NoiseScale:
    def loss(number: int) -> torch.Tensor:
        told(number)
        inputs, targets = (
            torch.from_numpy(ids.copy()).to(trained.device)
            for ids in sampler.batch(trained.step + number)
        )
        with autocast(trained.run.optim.precision, trained.device):
            return mean_cross_entropy(trained.model(inputs), targets)

    losses = [lambda number=number: loss(number) for number in range(batches)]
    found = noise_scale(losses, list(trained.model.parameters()), batch_size=sampler.batch_size)
    told(batches)
    return found


def _row(trained: Trained, found: NoiseScale, context: int) -> dict[str, Any]:
    """One checkpoint's; a number that is infinite, or not known, is None."""
    return {
        "step": trained.step,
        "tokens": trained.run.batches.tokens(trained.step),
        "noise_scale_sequences": finite(found.value),
        "low": finite(found.low),
        "high": finite(found.high),
        "noise_scale_tokens": finite(found.value * context),
        "squared_gradient": found.signal,
        "variance": found.variance,
    }


def read_noise(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's noise_scale.json, by step; none where it was not measured."""
    path = run / "noise_scale.json"
    return read_json(path)["checkpoints"] if path.exists() else []
