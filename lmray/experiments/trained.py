"""A run's newest model, ready to evaluate or to generate with."""

import codecs
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from lmray.config import Run
from lmray.dataset import Splits, open_splits
from lmray.errors import CorruptionError, PreflightError
from lmray.experiments.run_directory import RunDirectory
from lmray.generation import Sampling, generate_batch, stream
from lmray.model import TransformerLM
from lmray.tokenizer import Tokenizer, load_tokenizer
from lmray.training import checkpoint
from lmray.training.device import resolve_device

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A model with everything that belongs to it."""

    directory: RunDirectory
    run: Run
    tokenizer: Tokenizer
    model: TransformerLM
    device: torch.device
    step: int
    """Optimizer steps the weights have seen."""


def load_trained(directory: RunDirectory, *, step: int | Literal["newest"] = "newest") -> Trained:
    """Loads a checkpoint of a run, the newest whole one or that of `step`, and its tokenizer.

    Raises PreflightError if it has no such checkpoint or its dataset has changed, CorruptionError
    if every checkpoint is damaged.
    """
    run = directory.config
    imported = directory.status == "imported"
    path = directory.path / "tokenizer.json"
    tokenizer = load_tokenizer(path) if imported else open_data(directory).tokenizer
    found = checkpoint.newest_first(directory.checkpoints)
    if not found:
        raise PreflightError(
            f"{directory.path} has no checkpoint yet; let it train to its first one"
        )
    if step != "newest":
        kept = [int(path.name.removeprefix("step-")) for path in found]
        if step not in kept:
            raise PreflightError(
                f"{directory.path} has no checkpoint of step {step}; those it keeps are of "
                f"{', '.join(map(str, kept))}"
            )
        found = [found[kept.index(step)]]
    device = resolve_device(run.execution.device)
    model = TransformerLM.from_config(run.model).to(device).eval()

    def with_weights(path: Path) -> Trained:
        reached = checkpoint.load_weights(path, model).step
        return Trained(directory, run, tokenizer, model, device, reached)

    for path in found[:-1]:
        try:
            return with_weights(path)
        except CorruptionError as error:
            logger.warning("passing over a checkpoint: %s", error)
    return with_weights(found[-1])


def open_data(directory: RunDirectory) -> Splits:
    """Opens the data that a run was trained on.

    Raises PreflightError if it has changed, or if the run was imported and has none.
    """
    if directory.status == "imported":
        raise PreflightError(
            f"{directory.path} was imported and has no data of its own; name some with --tokens"
        )
    splits = open_splits(directory.facts["data"]["path"])
    if splits.digest != directory.facts["data"]["digest"]:
        raise PreflightError(
            f"{splits.directory} is not the data that {directory.path} was trained on (digest "
            f"{splits.digest[:12]}, not {directory.facts['data']['digest'][:12]}); build it again"
        )
    return splits


def continue_text(
    trained: Trained,
    prompt: str,
    *,
    max_new_tokens: int,
    sampling: Sampling,
    seed: int,
    samples: int = 1,
) -> list[tuple[str, int]]:
    """The texts a model goes on with after `prompt`, and their lengths in tokens.

    An empty prompt begins a document. The i-th of several `samples` has the seed `seed` + i.
    """
    tokenizer = trained.tokenizer
    prompts = [_prompt_ids(trained, prompt)] * samples
    stop = (tokenizer.end_of_text,)
    found = generate_batch(
        trained.model, prompts, max_new_tokens, sampling, stop_tokens=stop, seed=seed
    )
    return [(tokenizer.decode(ids), len(ids)) for ids in found]


def stream_text(
    trained: Trained, prompt: str, *, max_new_tokens: int, sampling: Sampling, seed: int
) -> Iterator[str]:
    """The first text of `continue_text` in pieces, each as soon as its characters are whole."""
    tokenizer = trained.tokenizer
    ids, stop = _prompt_ids(trained, prompt), (tokenizer.end_of_text,)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in stream(trained.model, ids, max_new_tokens, sampling, stop_tokens=stop, seed=seed):
        yield decoder.decode(tokenizer.decode_bytes([token]))
    yield decoder.decode(b"", final=True)


def _prompt_ids(trained: Trained, prompt: str) -> list[int]:
    # A document begins after the separator of the one before.
    tokenizer = trained.tokenizer
    return tokenizer.encode(prompt) if prompt else [tokenizer.end_of_text]
