"""A run's newest model, ready to evaluate or to generate with."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from lmray.config import Run
from lmray.dataset import Splits, open_splits
from lmray.errors import CorruptionError, PreflightError
from lmray.experiments.run_directory import RunDirectory
from lmray.generation import generate
from lmray.model import TransformerLM
from lmray.training import checkpoint
from lmray.training.device import resolve_device

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A model with everything that belongs to it."""

    directory: RunDirectory
    run: Run
    splits: Splits
    model: TransformerLM
    device: torch.device
    step: int
    """Optimizer steps the weights have seen."""


def load_trained(directory: RunDirectory) -> Trained:
    """Loads the newest whole checkpoint of a run and opens the data it was trained on.

    Raises PreflightError if it has no checkpoint or its dataset has changed, CorruptionError if
    every checkpoint is damaged.
    """
    run = directory.config
    splits = open_splits(directory.facts["data"]["path"])
    if splits.digest != directory.facts["data"]["digest"]:
        raise PreflightError(
            f"{splits.directory} is not the data that {directory.path} was trained on (digest "
            f"{splits.digest[:12]}, not {directory.facts['data']['digest'][:12]}); build it again"
        )
    found = checkpoint.newest_first(directory.checkpoints)
    if not found:
        raise PreflightError(
            f"{directory.path} has no checkpoint yet; let it train to its first one"
        )
    device = resolve_device(run.execution.device)
    model = TransformerLM.from_config(run.model).to(device).eval()

    def with_weights(path: Path) -> Trained:
        step = checkpoint.load_weights(path, model).step
        return Trained(directory, run, splits, model, device, step)

    for path in found[:-1]:
        try:
            return with_weights(path)
        except CorruptionError as error:
            logger.warning("passing over a checkpoint: %s", error)
    return with_weights(found[-1])


def continue_text(
    trained: Trained,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
) -> tuple[str, int]:
    """The text a model goes on with after `prompt`, and its length in tokens.

    An empty prompt begins a document.
    """
    tokenizer = trained.splits.tokenizer
    # A document begins after the separator of the one before.
    prompt_ids = tokenizer.encode(prompt) if prompt else [tokenizer.end_of_text]
    new = generate(
        trained.model,
        prompt_ids,
        max_new_tokens,
        temperature,
        top_p,
        stop_tokens=(tokenizer.end_of_text,),
        seed=seed,
    )
    return tokenizer.decode(new), len(new)
