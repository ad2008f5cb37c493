"""`lmray data export` and `import`: other programs' files of token ids."""

from pathlib import Path
from typing import Annotated

import typer

from lmray.cli.options import DEFAULT_ROOT, Json, Root, locate


def register(app: typer.Typer) -> None:
    """Adds both verbs to `lmray data`."""
    app.command("export")(export)
    app.command("import")(import_)


def export(
    dataset: Annotated[str, typer.Argument(help="A token dataset: its directory or its name.")],
    out: Annotated[Path, typer.Argument(help="Folder for the format's files.")],
    form: Annotated[str, typer.Option("--format", help="nanogpt, llmc or parquet.")],
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Write a token dataset as nanoGPT's or llm.c's .bin files or as Parquet."""
    from lmray.cli.show import human_bytes, progress, result
    from lmray.dataset import open_splits
    from lmray.dataset.exporting import export as export_dataset

    splits = open_splits(locate(dataset, root, "tokens"))
    with progress() as show:
        written = export_dataset(splits, out, format=form, progress=show)
    facts = {
        "files": {str(path): path.stat().st_size for path in written},
        "vocab_size": splits.tokenizer.vocab_size,
        "train_tokens": len(splits.train),
        "valid_tokens": len(splits.valid),
        "train_documents": splits.train.manifest.documents,
        "valid_documents": splits.valid.manifest.documents,
    }
    size = human_bytes(sum(facts["files"].values()))
    text = f"{', '.join(facts['files'])}: {len(splits.train):,} + {len(splits.valid):,} tokens of "
    text += f"{splits.tokenizer.vocab_size:,} ids, {size}"
    result(facts, text, as_json=json)


def import_(
    train: Annotated[
        list[Path], typer.Option(metavar="FILE", help="Ids of the training split, in order.")
    ],
    valid: Annotated[
        list[Path], typer.Option(metavar="FILE", help="Ids of the validation split, in order.")
    ],
    tokenizer: Annotated[str, typer.Option(help="Name or directory of their tokenizer.")],
    name: Annotated[str, typer.Option(help="The tokens are kept in ROOT/tokens/NAME.")],
    form: Annotated[
        str, typer.Option("--format", help="nanogpt, llmc or npy; by default as each file begins.")
    ] = "",
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Make a token dataset of .bin or .npy files of ids; every id is checked first."""
    from lmray import remote
    from lmray.cli.data import describe
    from lmray.cli.show import progress
    from lmray.corpus import Corpus
    from lmray.dataset.importing import import_tokens

    path = locate(tokenizer, root, "tokenizer") / "tokenizer.json"
    corpus = Corpus(name, tuple(train), tuple(valid))
    directory = root / "tokens" / name
    remote.refresh(directory)
    with progress() as show:
        import_tokens(corpus, path, directory, format=form, progress=show)
    remote.publish(directory)
    describe(directory, json)
