"""A folder of Hugging Face's files as a run that generates, is evaluated and exported like others.

runs/<name>/ then holds run.json with status imported, the tokenizer, and one checkpoint of step 0.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lmray.accounting import num_parameters
from lmray.config import Model, Run, build
from lmray.errors import CorruptionError, LmrayError, PreflightError
from lmray.model import TransformerLM
from lmray.model.huggingface_config import family_of, read_config
from lmray.model.huggingface_weights import from_huggingface
from lmray.runs.run_directory import RunDirectory
from lmray.storage import atomic_directory, read_json, sha256_file
from lmray.tokenizer import save_tokenizer
from lmray.tokenizer.huggingface_files import read_tokenizer
from lmray.training import checkpoint
from lmray.training.snapshot import START, take

_CONFIG, _WEIGHTS, _TOKENIZER = _FILES = ("config.json", "model.safetensors", "tokenizer.json")

_EVALUATED_TOKENS = 32_768
"""Tokens that evaluating takes at a time."""


def import_model(folder: Path, directory: RunDirectory) -> dict[str, Any]:
    """Makes a run of the folder's model, whole or not at all, and says what it is.

    Raises PreflightError for what lmray's model or tokenizer does not compute and for a directory
    that holds something else, CorruptionError for files that are damaged or do not belong together.
    """
    for name in _FILES:
        if not (folder / name).is_file():
            raise PreflightError(
                f"{folder} has no {name}; name a folder with {', '.join(_FILES)}, as "
                f"save_pretrained writes with max_shard_size='100GB'"
            )
    try:
        model = read_config(read_json(folder / _CONFIG))
    except LmrayError as error:
        raise type(error)(f"{folder / _CONFIG}: {error}") from error
    tokenizer = read_tokenizer(folder / _TOKENIZER)
    _ = tokenizer.end_of_text  # refuses one without
    if tokenizer.vocab_size != model.vocab_size:
        raise PreflightError(
            f"{folder / _CONFIG}: vocab_size={model.vocab_size} and the tokenizer has "
            f"{tokenizer.vocab_size} ids; give the model as many rows as there are ids"
        )
    source = {
        "folder": str(folder.resolve()),
        "architecture": family_of(model).architecture,
        "sha256": {name: sha256_file(folder / name) for name in _FILES},
    }
    facts = {
        "run": str(directory.path),
        "architecture": source["architecture"],
        "parameters": num_parameters(model),
        "vocab_size": model.vocab_size,
        "context_length": model.context_length,
    }
    if directory.status == "imported" and directory.facts["source"]["sha256"] == source["sha256"]:
        return facts
    lm = _load(folder / _WEIGHTS, model)
    with atomic_directory(directory.path) as aside:
        made = RunDirectory(aside)
        run = _run(model, bf16=lm.token_embeddings.weight.dtype == torch.bfloat16)
        made.adopt(run, directory.path.name, source)
        save_tokenizer(tokenizer, aside / "tokenizer.json", corpus_digest="unknown: imported")
        stateless = torch.optim.SGD(lm.parameters())
        checkpoint.write(made.checkpoints, take(START, lm, stateless, source))
    return facts


def _load(path: Path, model: Model) -> TransformerLM:
    """The model with the file's weights, in bf16 if all of them are and in fp32 else."""
    try:
        state = from_huggingface(model, load_file(path))
    except (SafetensorError, CorruptionError) as error:
        raise CorruptionError(f"{path}: {error}; fetch the file again") from error
    lm = TransformerLM.from_config(model)
    if {tensor.dtype for tensor in state.values()} == {torch.bfloat16}:
        lm = lm.bfloat16()
    lm.load_state_dict(state)
    return lm


def _run(model: Model, *, bf16: bool) -> Run:
    """A configuration with the model in it; the rest is what evaluating reads."""
    context = model.context_length
    batch = max(1, _EVALUATED_TOKENS // context)
    return build(
        {
            "model": model,
            "data": {"tokens": "none", "batch_size": batch},
            "optim": {"precision": "bf16_weights" if bf16 else "fp32"},
            "budget": {"tokens": batch * context},
            "evaluation": {"prefix_tokens": context},
        },
        source="an imported model",
    )
