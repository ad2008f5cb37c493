"""A run's model at one of its checkpoints, ready to evaluate or to generate with."""

import codecs
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from lmray.config import Run
from lmray.dataset import Splits, open_splits
from lmray.errors import CorruptionError, PreflightError
from lmray.generation import Sampling, stream
from lmray.model import TransformerLM
from lmray.runs.run_directory import RunDirectory
from lmray.runs.samples import Continuation, prompt_ids, write_on
from lmray.tokenizer import Tokenizer, load_tokenizer
from lmray.training import checkpoint
from lmray.training.device import device_at_hand

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


def load_trained(directory: RunDirectory, which: str = "latest") -> Trained:
    """Loads a checkpoint of a run and its tokenizer.

    `which` is latest (the newest that is whole), best (of execution.keep_best) or a step. A run of
    a GPU is loaded where there is none, too: the model is then on the CPU.

    Raises PreflightError if there is no such checkpoint or the dataset has changed, CorruptionError
    if the checkpoint, or every one of the latest, is damaged.
    """
    run = directory.config
    imported = directory.status == "imported"
    path = directory.path / "tokenizer.json"
    tokenizer = load_tokenizer(path) if imported else open_data(directory).tokenizer
    found = checkpoint.select(directory.checkpoints, which)
    device = device_at_hand(run.execution.device)
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
) -> list[Continuation]:
    """The texts a model goes on with after `prompt`; an empty one begins a document.

    The i-th of several `samples` has the seed `seed` + i.
    """
    return write_on(
        trained.model,
        trained.tokenizer,
        [prompt] * samples,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
    )


def stream_text(
    trained: Trained, prompt: str, *, max_new_tokens: int, sampling: Sampling, seed: int
) -> Iterator[str]:
    """The first text of `continue_text` in pieces, each as soon as its characters are whole."""
    tokenizer = trained.tokenizer
    ids, stop = prompt_ids(tokenizer, prompt), (tokenizer.end_of_text,)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in stream(trained.model, ids, max_new_tokens, sampling, stop_tokens=stop, seed=seed):
        yield decoder.decode(tokenizer.decode_bytes([token]))
    yield decoder.decode(b"", final=True)
