"""`lmray tokenizer`: train a byte-level BPE vocabulary on a corpus."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmray.cli.options import DEFAULT_ROOT, Address, Json, Root, Workers
from lmray.errors import PreflightError

if TYPE_CHECKING:
    from lmray.corpus import Corpus
    from lmray.progress import Progress

app = typer.Typer(help="Train a tokenizer.", no_args_is_help=True)

COUNT_BYTES = 8 << 20
"""Text bytes one counting task reads."""


@app.callback()
def tokenizer() -> None:
    """Keeps `train` a verb of its own: typer would make a single command the group itself."""


@app.command()
def train(
    source: Annotated[
        list[str], typer.Argument(help="A known corpus' name, or text files (training split).")
    ],
    vocab_size: Annotated[int, typer.Option(help="Ids, with 256 bytes and the special token.")],
    name: Annotated[str, typer.Option(help="The tokenizer is kept in ROOT/tokenizer/NAME.")],
    valid: Annotated[
        list[str] | None, typer.Option(help="Validation file; not trained on.")
    ] = None,
    workers: Workers = 1,
    address: Address = "",
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Train a byte-level BPE vocabulary with GPT-2's split pattern."""
    from lmray.cli.corpus import prepare_sources
    from lmray.cli.show import progress, result

    with progress() as show:
        corpus = prepare_sources(source, valid or [], root, show)
        path, facts = train_tokenizer(
            corpus, root / "tokenizer" / name, vocab_size, workers, address, show
        )
    text = f"{path}: {facts['vocab_size']:,} ids, {facts['merges']:,} merges, longest token "
    text += f"{facts['longest_bytes']} bytes, trained on {facts['bytes']:,} bytes"
    result(facts, text, as_json=json)


def train_tokenizer(
    corpus: "Corpus",
    directory: Path,
    vocab_size: int,
    workers: int,
    address: str,
    progress: "Progress",
) -> tuple[Path, dict[str, Any]]:
    """Trains directory/tokenizer.json on the corpus' training split, or finds it there already.

    Raises PreflightError if `directory` holds a tokenizer of another corpus or size.
    """
    from collections import Counter

    from lmray.corpus import byte_ranges
    from lmray.storage import read_json, write_json
    from lmray.tokenizer import (
        END_OF_TEXT,
        GPT2_PATTERN,
        PretokenCounts,
        Tokenizer,
        count_pretokens,
        learn_merges,
        native,
        save_tokenizer,
        vocabulary,
    )

    path, report = directory / "tokenizer.json", directory / "report.json"
    wanted = {"vocab_size": vocab_size, "corpus": corpus.digest()}
    if path.exists() and report.exists():
        facts = read_json(report)
        differing = [key for key, value in wanted.items() if facts[key] != value]
        if differing:
            raise PreflightError(
                f"{directory} holds another tokenizer (not the same {', '.join(differing)}); "
                f"choose another --name or delete it"
            )
        return path, facts
    begun = time.monotonic()
    specials = [END_OF_TEXT]
    ranges = [part for file in corpus.train for part in byte_ranges(file, target_bytes=COUNT_BYTES)]
    if workers > 1:
        from lmray.distributed.cluster import ray_session
        from lmray.distributed.data import count_ranges

        with ray_session(address):
            counts = count_ranges(
                ranges,
                pattern=GPT2_PATTERN,
                special_tokens=specials,
                num_cpus=workers,
                progress=progress,
            )
    else:
        counts = Counter[bytes]()
        done, size = 0, sum(part.size for part in ranges)
        if native.worth_it(GPT2_PATTERN, size):
            # Named, for on a machine's first time it takes some fifteen seconds.
            progress("token kernels", 0, 1, "set, compiled once a machine")
            native.kernels()
            progress("token kernels", 1, 1, "set, compiled once a machine")
        progress("count pre-tokens", 0, size, "bytes")
        for part in ranges:
            counts.update(
                count_pretokens(part.read(), pattern=GPT2_PATTERN, special_tokens=specials)
            )
            done += part.size
            progress("count pre-tokens", done, size, "bytes")
    merges = learn_merges(
        PretokenCounts.of(counts),
        vocab_size=vocab_size,
        special_tokens=specials,
        progress=progress,
    )
    made = Tokenizer(vocabulary(merges, specials), merges, specials)
    facts = {
        **wanted,
        "fingerprint": made.fingerprint,
        "merges": len(merges),
        "distinct_pretokens": len(counts),
        "pretokens": sum(counts.values()),
        "bytes": sum(part.size for part in ranges),
        "longest_bytes": int(made.token_bytes().max()),
        "seconds": round(time.monotonic() - begun, 2),
    }
    save_tokenizer(made, path, corpus_digest=wanted["corpus"])
    write_json(report, facts)
    return path, facts
