"""`lmray corpus`: the texts lmray knows by name, downloads, and what a text holds."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmray.cli.options import DEFAULT_ROOT, Json, Root

if TYPE_CHECKING:
    from lmray.corpus import Corpus
    from lmray.progress import Progress

app = typer.Typer(help="List, fetch and describe corpora.", no_args_is_help=True)


@app.command("list")
def list_corpora(json: Json = False) -> None:
    """List the corpora lmray knows by name."""
    from lmray.cli.show import human_bytes, result, table
    from lmray.corpus import NAMED

    if json:
        facts = [
            {"name": c.name, "about": c.about, "files": [asdict(f) for f in c.files]}
            for c in NAMED.values()
        ]
        result(facts, "", as_json=True)
        return
    rows = []
    for corpus in NAMED.values():
        sizes = [file.bytes for file in corpus.files]
        known = [size for size in sizes if isinstance(size, int)]
        size = human_bytes(sum(known)) if len(known) == len(sizes) else "unknown"
        rows.append([corpus.name, size if sizes else "none", corpus.about])
    table(["name", "download", "what"], rows)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A corpus of `lmray corpus list`.")],
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Bring a named corpus here; a download that was interrupted goes on."""
    import lmray.corpus
    from lmray.cli.show import progress, result

    with progress() as show:
        corpus = lmray.corpus.fetch(name, root=root, progress=show)
    files = {split: [str(path) for path in paths] for split, paths in corpus.splits.items()}
    text = "\n".join(f"{split}: {path}" for split, paths in files.items() for path in paths)
    result({"name": name, **files}, text, as_json=json)


@app.command()
def stat(
    files: Annotated[
        list[Path], typer.Argument(help="Text files: .txt, .txt.gz, .jsonl, .parquet.")
    ],
    json: Json = False,
) -> None:
    """Count bytes and documents of text files."""
    import lmray.corpus
    from lmray.cli.show import progress, result

    with progress() as show:
        facts = lmray.corpus.stat(files, progress=show)
    text = (
        f"{facts.bytes:,} bytes, {facts.documents:,} documents (median {facts.median_bytes:,.0f}, "
        f"longest {facts.longest_bytes:,} bytes), {facts.invalid_utf8_share:.4%} not valid UTF-8"
    )
    result(asdict(facts), text, as_json=json)


def prepare_sources(
    sources: Sequence[str], valid: Sequence[str], root: Path, progress: "Progress"
) -> "Corpus":
    """The corpus that a name, or files with perhaps validation files, stand for.

    Files that must be converted or split are kept beneath root/corpora, by a name made of theirs.
    """
    import hashlib

    from lmray.corpus import NAMED, prepare

    if len(sources) == 1 and sources[0] in NAMED:
        return prepare(sources[0], name=sources[0], root=root, valid=valid, progress=progress)
    if len(sources) == 1 and not Path(sources[0]).suffix and not Path(sources[0]).exists():
        # Neither a file nor a name: the room that knows the names says so.
        return prepare(sources[0], name=sources[0], root=root, progress=progress)
    paths = [str(Path(path).absolute()) for path in (*sources, "", *valid)]
    digest = hashlib.sha256("\n".join(paths).encode()).hexdigest()[:8]
    stem = Path(sources[0]).name.partition(".")[0]
    plain = "".join(c if (c.isascii() and c.isalnum()) or c in "_-" else "_" for c in stem).lstrip(
        "_-"
    )
    name = f"{plain or 'text'}-{digest}"
    return prepare(list(sources), name=name, root=root, valid=list(valid), progress=progress)
