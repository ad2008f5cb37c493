"""`lmray tokenizer export` and `import`: other programs' tokenizer files."""

from pathlib import Path
from typing import Annotated

import typer

from lmray.cli.options import DEFAULT_ROOT, Json, Root, locate

Form = Annotated[str, typer.Option("--format", help="gpt2, tiktoken or huggingface.")]


def register(app: typer.Typer) -> None:
    """Adds both verbs to `lmray tokenizer`."""
    app.command("export")(export)
    app.command("import")(import_)


def export(
    tokenizer: Annotated[str, typer.Argument(help="A tokenizer: its directory or its name.")],
    out: Annotated[Path, typer.Argument(help="Folder for the format's files.")],
    form: Form,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Write a tokenizer as GPT-2's files, tiktoken's ranks or Hugging Face's tokenizer.json."""
    from lmray.cli.show import result
    from lmray.tokenizer import load_tokenizer
    from lmray.tokenizer.formats import write_tokenizer

    loaded = load_tokenizer(locate(tokenizer, root, "tokenizer") / "tokenizer.json")
    written = write_tokenizer(loaded, out, format=form)
    facts = {
        "files": list(map(str, written)),
        "vocab_size": loaded.vocab_size,
        "pattern": loaded.pattern,
        "special_tokens": loaded.special_ids,
    }
    text = f"{', '.join(facts['files'])}: {loaded.vocab_size:,} ids"
    if form == "tiktoken":
        text += f"; the file lacks pat_str={loaded.pattern!r}, special_tokens={loaded.special_ids}"
    result(facts, text, as_json=json)


def import_(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="The format's files.")],
    name: Annotated[str, typer.Option(help="The tokenizer is kept in ROOT/tokenizer/NAME.")],
    form: Annotated[
        str, typer.Option("--format", help="gpt2, tiktoken or huggingface; by default as found.")
    ] = "",
    special: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOKEN[=ID]",
            help="A special token, for gpt2 and tiktoken files.  [default: <|endoftext|>]",
        ),
    ] = None,
    pattern: Annotated[
        str,
        typer.Option(
            help="Split pattern, for tiktoken files: gpt2, gpt4, nanochat or a regular expression."
        ),
    ] = "gpt2",
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Read another program's tokenizer and keep it as `lmray tokenizer train` keeps its own."""
    from lmray import remote
    from lmray.cli.show import result
    from lmray.errors import PreflightError
    from lmray.storage import sha256_file, write_json
    from lmray.tokenizer import load_tokenizer, save_tokenizer
    from lmray.tokenizer.formats import SPECIALS, detect, read_tokenizer
    from lmray.tokenizer.pattern import PATTERNS

    found, files = (form, paths) if form else detect(paths)
    made = read_tokenizer(
        files,
        format=found,
        special_tokens=special or SPECIALS,
        pattern=PATTERNS.get(pattern, pattern),
    )
    directory = root / "tokenizer" / name
    remote.refresh(directory)
    path, report = directory / "tokenizer.json", directory / "report.json"
    if path.exists() and load_tokenizer(path).fingerprint != made.fingerprint:
        raise PreflightError(
            f"{directory} holds another tokenizer; choose another --name or delete it"
        )
    single = {data for data in made.vocab.values() if len(data) == 1}
    facts = {
        "vocab_size": made.vocab_size,
        "corpus": "unknown: imported",
        "format": found,
        "files": {str(file): sha256_file(file) for file in files},
        "fingerprint": made.fingerprint,
        "merges": len(made.merges),
        "special_tokens": made.special_ids,
        "bytes_without_token": 256 - len(single),
        "longest_bytes": int(made.token_bytes().max()),
    }
    if not path.exists():
        save_tokenizer(made, path, corpus_digest=facts["corpus"])
        write_json(report, facts)
        remote.publish(directory)
    text = f"{path}: {made.vocab_size:,} ids, {len(made.merges):,} merges, special tokens "
    text += ", ".join(f"{token} = {number}" for token, number in made.special_ids.items())
    if facts["bytes_without_token"]:
        text += f"; {facts['bytes_without_token']} bytes are no token: text with them is refused"
    result(facts, text, as_json=json)
