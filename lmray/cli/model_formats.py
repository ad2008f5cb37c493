"""`lmray export` and `lmray import`: models in Hugging Face's files."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lmray.cli.options import DEFAULT_ROOT, Checkpoint, Json, Root, find_run
from lmray.errors import UsageError


def register(app: typer.Typer) -> None:
    """Adds both verbs to `lmray`."""
    app.command("export")(export)
    app.command("import")(import_)


def export(
    run: Annotated[str, typer.Argument(help="A run: its directory or the beginning of its id.")],
    folder: Annotated[Path, typer.Argument(help="Folder to make; one that holds files is kept.")],
    checkpoint: Checkpoint = "latest",
    dtype: Annotated[
        Literal["auto", "fp32", "bf16"],
        typer.Option(help="What weights are written in; auto is what they were trained in."),
    ] = "auto",
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Write a run's model and tokenizer as a folder that Hugging Face's transformers loads."""
    from lmray.cli.show import result
    from lmray.runs.exporting import export_model
    from lmray.runs.trained import load_trained

    trained = load_trained(find_run(run, root), checkpoint)
    facts = export_model(trained, folder, dtype=dtype)
    text = (
        f"{folder}: {facts['architecture']} of {facts['parameters']:,} parameters in "
        f"{facts['dtype']}, from {facts['run']} at step {facts['step']:,}"
    )
    result(facts, text, as_json=json)


def import_(
    folder: Annotated[
        Path, typer.Argument(help="Folder with config.json, model.safetensors, tokenizer.json.")
    ],
    name: Annotated[str, typer.Option(help="The model is kept in ROOT/runs/NAME.")],
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Read a model in Hugging Face's files as a run to generate with, evaluate and export."""
    if name in ("", ".", "..") or "/" in name:
        raise UsageError(f"--name={name} is not the name of a folder; write it as in --name llama")
    from lmray import remote
    from lmray.cli.show import result
    from lmray.runs.importing import import_model
    from lmray.runs.run_directory import RunDirectory

    path = root / "runs" / name
    remote.refresh(path)
    facts = import_model(folder, RunDirectory(path))
    remote.publish(path)
    text = (
        f"{facts['run']}: {facts['architecture']} of {facts['parameters']:,} parameters, "
        f"{facts['vocab_size']:,} ids, context {facts['context_length']:,}"
    )
    result(facts, text, as_json=json)
