"""A run's model as a folder that `transformers`, and what reads its files, can load.

config.json, generation_config.json   the architecture, and the ids that begin and end a text
model.safetensors                     the weights under Hugging Face's names
tokenizer.json, tokenizer_config.json, special_tokens_map.json
README.md                             the model card: what it is and how well it does
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jinja2
import torch
import yaml
from safetensors.torch import save_file

from lmray.accounting import num_parameters
from lmray.model.huggingface_config import family_of, write_config
from lmray.model.huggingface_weights import to_huggingface
from lmray.runs.trained import Trained
from lmray.storage import atomic_directory, write_bytes, write_json
from lmray.tokenizer.formats import write_tokenizer
from lmray.tokenizer.pattern import END_OF_TEXT

DType = Literal["auto", "fp32", "bf16"]
"""What the weights are written in; auto is what they were trained in."""


def export_model(trained: Trained, folder: Path, *, dtype: DType = "auto") -> dict[str, Any]:
    """Writes the folder, whole or not at all, and says what is in it.

    Raises PreflightError for a model that no architecture of Hugging Face's computes and for a
    folder that holds something else, UsageError for a tokenizer that tokenizer.json cannot express.
    """
    model, tokenizer = trained.run.model, trained.tokenizer
    precise = _torch_dtype(trained, dtype)
    name = str(precise).removeprefix("torch.")
    config = write_config(model, name, tokenizer.end_of_text)
    tensors = to_huggingface(model, trained.model.state_dict())
    facts = {
        "run": str(trained.directory.path),
        "step": trained.step,
        "architecture": family_of(model).architecture,
        "parameters": num_parameters(model),
        "dtype": name,
    }
    special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    with atomic_directory(folder) as aside:
        write_json(aside / "config.json", config)
        ids = {key: config[key] for key in ("bos_token_id", "eos_token_id")}
        write_json(aside / "generation_config.json", ids)
        weights = aside / "model.safetensors"
        cast = {key: tensor.to("cpu", precise) for key, tensor in tensors.items()}
        save_file(cast, weights, metadata={"format": "pt"})  # transformers asks for it
        weights.chmod(0o644)  # safetensors makes files that only their owner reads
        write_tokenizer(tokenizer, aside, format="huggingface")
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is
            "model_max_length": model.context_length,
            "clean_up_tokenization_spaces": False,
        }
        write_json(aside / "tokenizer_config.json", settings | special)
        write_json(aside / "special_tokens_map.json", special)
        write_bytes(aside / "README.md", _card(trained, facts).encode())
    return {"folder": str(folder), **facts}


def _torch_dtype(trained: Trained, dtype: DType) -> torch.dtype:
    if dtype == "auto":
        dtype = "bf16" if trained.run.optim.precision == "bf16_weights" else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]


def _card(trained: Trained, facts: Mapping[str, Any]) -> str:
    """The model card, which is the same whenever it is written."""
    run, known = trained.run, trained.directory.facts
    imported = known["status"] == "imported"
    experiment = {"model": run.model.experiment()} if imported else run.experiment()
    measured = [
        record
        for record in trained.directory.records("validation")
        if record["step"] <= trained.step and record["loss"] is not None
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["thousands"] = "{:,}".format
    return environment.get_template("model_card.md.j2").render(
        **facts,
        imported=imported,
        run_id=known["run_id"],
        source=known.get("source"),
        data_digest=known.get("data", {}).get("digest"),
        tokens=run.batches.tokens(trained.step),
        measured=measured[-1:],
        end_of_text=END_OF_TEXT,
        context_length=run.model.context_length,
        experiment=yaml.safe_dump(experiment, sort_keys=False),
    )
