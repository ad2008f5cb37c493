"""`lmray data`: encode a corpus into token shards, verify and describe them; other formats."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmray.cli import data_formats
from lmray.cli.options import DEFAULT_ROOT, Address, Json, Root, Workers, locate

if TYPE_CHECKING:
    from lmray.corpus import Corpus
    from lmray.progress import Progress

app = typer.Typer(
    help="Encode a corpus into token shards; verify, describe, export and import them.",
    no_args_is_help=True,
)
data_formats.register(app)

Dataset = Annotated[str, typer.Argument(help="A token dataset: its directory or its name.")]


@app.command()
def build(
    source: Annotated[
        list[str], typer.Argument(help="A known corpus' name, or text files (training split).")
    ],
    tokenizer: Annotated[str, typer.Option(help="Name or directory of the tokenizer.")],
    name: Annotated[str, typer.Option(help="The tokens are kept in ROOT/tokens/NAME.")],
    valid: Annotated[
        list[str] | None,
        typer.Option(help="Validation file; without one, documents are set aside from the source."),
    ] = None,
    workers: Workers = 1,
    address: Address = "",
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Encode both splits of a corpus into shards; a build that was interrupted is finished."""
    from lmray.cli.corpus import prepare_sources
    from lmray.cli.show import progress

    path = locate(tokenizer, root, "tokenizer") / "tokenizer.json"
    directory = root / "tokens" / name
    with progress() as show:
        corpus = prepare_sources(source, valid or [], root, show)
        build_dataset(corpus, path, directory, workers, address, show)
    describe(directory, json)


def build_dataset(
    corpus: "Corpus",
    tokenizer: Path,
    directory: Path,
    workers: int,
    address: str,
    progress: "Progress",
) -> None:
    """Encodes `corpus` here, or with several workers through Ray Data: the same bytes."""
    import lmray.dataset
    from lmray import remote
    from lmray.errors import PreflightError

    if workers == 1:
        lmray.dataset.build(corpus, tokenizer, directory, progress=progress)
        return
    if address and remote.url(directory):
        raise PreflightError(
            f"several nodes cannot write shards to {remote.url(directory)}; leave out --address "
            f"and RAY_ADDRESS to build on this machine, or give a folder that all nodes share"
        )
    from lmray.distributed.cluster import ray_session
    from lmray.distributed.data import run_tasks
    from lmray.distributed.shared_root import require_seen

    with ray_session(address, shared=directory.parent):
        require_seen([*corpus.train, *corpus.valid, tokenizer])
        lmray.dataset.build(
            corpus,
            tokenizer.resolve(),
            directory.resolve(),
            run_tasks=run_tasks(workers),
            progress=progress,
        )


@app.command()
def verify(dataset: Dataset, root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Read every byte of a token dataset and compare it with its manifest."""
    from lmray.cli.show import progress, result
    from lmray.dataset import open_splits

    directory = locate(dataset, root, "tokens")
    begun = time.monotonic()
    splits = open_splits(directory)
    shards = [*splits.train.manifest.shards, *splits.valid.manifest.shards]
    with progress() as show:
        for number, split in enumerate((splits.train, splits.valid)):
            split.verify()
            show("verify", number + 1, 2, "splits")
    facts = {
        "directory": str(directory),
        "shards": len(shards),
        "tokenizer": splits.tokenizer.fingerprint,
        "seconds": round(time.monotonic() - begun, 2),
    }
    result(facts, f"{directory}: all {len(shards)} shards are as their manifest says", as_json=json)


@app.command()
def stat(dataset: Dataset, root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Say how many tokens, bytes and documents a token dataset has."""
    describe(locate(dataset, root, "tokens"), json)


def describe(directory: Path, as_json: bool) -> None:
    """Prints what a token dataset has."""
    from lmray.cli.show import result, table
    from lmray.dataset import open_splits

    splits = open_splits(directory)
    rows: dict[str, dict[str, Any]] = {}
    for name, manifest in (("train", splits.train.manifest), ("valid", splits.valid.manifest)):
        rows[name] = {
            "tokens": manifest.tokens,
            "bytes": manifest.bytes,
            "documents": manifest.documents,
            "bytes_per_token": round(manifest.bytes / manifest.tokens, 4),
            "shards": len(manifest.shards),
            "dtype": manifest.dtype,
        }
    facts = {
        "directory": str(directory),
        "vocab_size": splits.tokenizer.vocab_size,
        "tokenizer": splits.tokenizer.fingerprint,
        "digest": splits.digest,
        **rows,
    }
    if as_json:
        result(facts, "", as_json=True)
        return
    header = ["split", *rows["train"]]
    shown = [
        [n, *(f"{v:,}" if isinstance(v, int) else str(v) for v in r.values())]
        for n, r in rows.items()
    ]
    table(header, shown)
    result(
        facts,
        f"{directory}  ·  {splits.tokenizer.vocab_size:,} ids  ·  digest {splits.digest[:12]}",
        as_json=False,
    )
