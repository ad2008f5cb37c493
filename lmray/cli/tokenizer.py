"""`lmray tokenizer`: train a byte-level BPE vocabulary on a corpus; other programs' files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmray.cli import tokenizer_formats, tokenizer_report
from lmray.cli.options import DEFAULT_ROOT, Address, Json, Root, Workers

if TYPE_CHECKING:
    from lmray.corpus import Corpus
    from lmray.progress import Progress
    from lmray.tokenizer.build import Recipe

app = typer.Typer(
    help="Train tokenizers; report on them, compare, export and import.", no_args_is_help=True
)


@app.command()
def train(
    source: Annotated[
        list[str], typer.Argument(help="A known corpus' name, or text files (training split).")
    ],
    vocab_size: Annotated[int, typer.Option(help="Ids, with 256 bytes and the special tokens.")],
    name: Annotated[str, typer.Option(help="The tokenizer is kept in ROOT/tokenizer/NAME.")],
    valid: Annotated[
        list[str] | None, typer.Option(help="Validation file; not trained on.")
    ] = None,
    pattern: Annotated[
        str, typer.Option(help="Split pattern: gpt2, gpt4, nanochat or a regular expression.")
    ] = "gpt2",
    special: Annotated[
        list[str] | None, typer.Option(help="A further special token; repeat for more.")
    ] = None,
    tie_break: Annotated[
        str, typer.Option(help="Which of equally frequent pairs is merged: bytes or huggingface.")
    ] = "bytes",
    max_bytes: Annotated[
        int | None,
        typer.Option(min=1, help="Learn from a sample of documents, of about this many bytes."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses the sample.")] = 0,
    memory: Annotated[
        float | None,
        typer.Option(help="Most GB of counts in a process; without it, half the machine's in all."),
    ] = None,
    workers: Workers = 1,
    address: Address = "",
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Train a byte-level BPE vocabulary; counts are kept, so another size takes only the merges."""
    from lmray.cli.corpus import prepare_sources
    from lmray.cli.show import err, human_bytes, progress, result
    from lmray.machine import total_memory
    from lmray.tokenizer import END_OF_TEXT
    from lmray.tokenizer.build import ALL_TEXT, Recipe
    from lmray.tokenizer.pattern import PATTERNS

    recipe = Recipe(
        vocab_size,
        pattern=PATTERNS.get(pattern, pattern),
        special_tokens=(END_OF_TEXT, *(special or ())),
        tie_break=tie_break,  # pyrefly: ignore[bad-argument-type] - the recipe checks it
        seed=seed,
        max_bytes=ALL_TEXT if max_bytes is None else max_bytes,
    )
    allowed = total_memory() // 2 // workers if memory is None else int(memory * 1e9)
    with progress() as show:
        corpus = prepare_sources(source, valid or [], root, show)
        err.print(f"memory: counts and merges keep to {human_bytes(allowed)} in each process")
        path, facts = train_tokenizer(
            corpus, root, name, recipe, workers, address, show, memory=allowed
        )
    seconds = facts["seconds"]
    text = (
        f"{path}: {facts['vocab_size']:,} ids, {facts['merges']:,} merges, longest token "
        f"{facts['longest_bytes']} bytes\n{facts['bytes']:,} bytes of text, "
        f"{facts['distinct_pretokens']:,} distinct pre-tokens; "
        f"counted in {seconds['counting']} s, merges learnt in {seconds['merging']} s "
        f"({facts['merges_per_second']:,} a second), peak memory "
        f"{human_bytes(facts['peak_bytes']['this process'])}"
    )
    result(facts, text, as_json=json)


def train_tokenizer(
    corpus: "Corpus",
    root: Path,
    name: str,
    recipe: "Recipe",
    workers: int,
    address: str,
    progress: "Progress",
    *,
    memory: int,
) -> tuple[Path, dict[str, Any]]:
    """Trains ROOT/tokenizer/NAME here, or with several workers through Ray Data."""
    from functools import partial

    from lmray import remote
    from lmray.tokenizer.build import build

    directory = root / "tokenizer" / name
    train = partial(build, corpus, directory, recipe, kept_counts=root / "counts", memory=memory)
    path = directory / "tokenizer.json"
    remote.refresh(directory)
    if workers == 1:
        facts = train(progress=progress)
        remote.publish(directory)
        return path, facts
    from lmray.distributed.cluster import ray_session
    from lmray.distributed.data import count_ranges
    from lmray.distributed.shared_root import require_seen

    with ray_session(address, shared=directory.parent):
        require_seen(corpus.train)
        facts = train(count_ranges=count_ranges(workers), progress=progress)
    remote.publish(directory)
    return path, facts


tokenizer_report.register(app)
tokenizer_formats.register(app)
