"""`lmray tokenizer report` and `compare`: vocabularies, what they make of corpora, and how fast."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmray.cli.options import DEFAULT_ROOT, Json, Root, locate

if TYPE_CHECKING:
    from lmray.progress import Progress
    from lmray.tokenizer import Tokenizer
    from lmray.tokenizer.report import Throughput, Usage, Vocabulary

Corpora = Annotated[
    list[str] | None,
    typer.Option(
        "--corpus", help="A text file or a known corpus' name, encoded as a whole; repeatable."
    ),
]


def register(app: typer.Typer) -> None:
    """Adds both verbs to `lmray tokenizer`."""
    app.command()(report)
    app.command()(compare)


def report(
    tokenizer: Annotated[str, typer.Argument(help="A tokenizer: its name, folder or file.")],
    corpus: Corpora = None,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Describe a vocabulary; with a corpus also what becomes of it, and the speed of encoding."""
    from lmray.cli.show import progress, result
    from lmray.tokenizer.report import describe, measure, throughput

    read = _read(tokenizer, root)
    vocabulary = describe(read)
    with progress() as show:
        sources = _sources(corpus or [], root, show)
        usages = [measure(read, name, files, progress=show) for name, files in sources.items()]
    rates = [throughput(read, files) for files in list(sources.values())[:1]]
    facts: dict[str, Any] = {
        "tokenizer": tokenizer,
        "vocabulary": asdict(vocabulary),
        "corpora": [asdict(usage) for usage in usages],
    }
    if rates:
        facts["throughput"] = asdict(rates[0])
    if json:
        result(facts, "", as_json=True)
        return
    _show_vocabulary(tokenizer, vocabulary)
    if usages:
        _show_usages(usages)
    for rate in rates:
        result(facts, "\n" + _in_words(rate), as_json=False)


def compare(
    tokenizers: Annotated[list[str], typer.Argument(help="Names, folders or files.")],
    corpus: Corpora = None,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Set tokenizers beside each other on corpora: bytes per token, and tokens."""
    from lmray.cli.show import progress, result, table
    from lmray.errors import UsageError
    from lmray.tokenizer.report import measure

    if not corpus:
        raise UsageError("nothing to compare on; name a text with --corpus FILE, or several")
    read = {name: _read(name, root) for name in tokenizers}
    with progress() as show:
        sources = _sources(corpus, root, show)
        found = {
            name: [measure(one, corpus, files, progress=show) for corpus, files in sources.items()]
            for name, one in read.items()
        }
    facts = [
        {
            "tokenizer": name,
            "ids": len(read[name].vocab),
            "fingerprint": read[name].fingerprint,
            "corpora": [asdict(usage) for usage in usages],
        }
        for name, usages in found.items()
    ]
    if json:
        result(facts, "", as_json=True)
        return
    columns = [f"{source}: {what}" for source in sources for what in ("bytes/token", "tokens")]
    rows = [
        [
            name,
            f"{len(read[name].vocab):,}",
            *(cell for u in usages for cell in (f"{u.bytes_per_token:.3f}", f"{u.tokens:,}")),
        ]
        for name, usages in found.items()
    ]
    table(["tokenizer", "ids", *columns], rows)


def _read(given: str, root: Path) -> "Tokenizer":
    from lmray.tokenizer import load_tokenizer

    if Path(given).is_file():
        return load_tokenizer(given)
    return load_tokenizer(locate(given, root, "tokenizer") / "tokenizer.json")


def _sources(corpora: Sequence[str], root: Path, progress: "Progress") -> dict[str, list[Path]]:
    """The files of each: a text file is read as it is, others are prepared, both their splits."""
    from lmray.cli.corpus import prepare_sources

    found: dict[str, list[Path]] = {}
    for given in corpora:
        path = Path(given)
        if path.suffix == ".txt" and path.is_file():
            # Two files of one name are told apart by their folders.
            found[given if path.stem in found else path.stem] = [path]
        else:
            corpus = prepare_sources([given], [], root, progress)
            found[corpus.name] = [*corpus.train, *corpus.valid]
    return found


def _show_vocabulary(name: str, vocabulary: "Vocabulary") -> None:
    from lmray.cli.show import result, table

    def say(text: str) -> None:
        result(None, text, as_json=False)

    specials = " ".join(vocabulary.special_tokens) or "none"
    say(
        f"{name}: {vocabulary.ids:,} ids, {vocabulary.merges:,} merges, special tokens {specials}, "
        f"fingerprint {vocabulary.fingerprint[:12]}"
    )
    say("\nlongest tokens")
    table(["bytes", "id", "token"], [[f"{n}", f"{i}", _cut(t)] for n, i, t in vocabulary.longest])
    say("\ntokens by kind")
    shares = [
        [kind, f"{count:,}", f"{count / vocabulary.ids:.1%}"]
        for kind, count in vocabulary.kinds.items()
    ]
    table(["kind", "tokens", "share"], shares)
    say("\ntokens by length")
    table(["bytes", "tokens"], [[n, f"{count:,}"] for n, count in vocabulary.lengths.items()])
    if vocabulary.mojibake:
        longest = ", ".join(token for _size, _number, token in vocabulary.mojibake[:3])
        say(
            f"\n{len(vocabulary.mojibake)} tokens are of double-encoded UTF-8 (mojibake), as in "
            f"the text they were learnt from: {longest}"
        )


def _show_usages(usages: Sequence["Usage"]) -> None:
    from lmray.cli.show import out, table

    out.print()
    header = ["corpus", "bytes", "tokens", "bytes/token", "byte fallback", "single bytes"]
    header += ["mojibake", "merges never emitted", "unused"]
    rows = [
        [
            usage.corpus,
            f"{usage.bytes:,}",
            f"{usage.tokens:,}",
            f"{usage.bytes_per_token:.3f}",
            *(f"{x:.3%}" for x in (usage.byte_fallback, usage.single_bytes, usage.mojibake)),
            f"{usage.never_emitted:,}",
            f"{usage.unused:,}",
        ]
        for usage in usages
    ]
    table(header, rows)


def _in_words(rate: "Throughput") -> str:
    return (
        f"encoding: {rate.one_mb_per_s:.1f} MB/s on one core, {rate.all_mb_per_s:.1f} MB/s on "
        f"{rate.cores}; the Pile's 825 GB would take {rate.pile_hours_one:,.2f} hours on one core, "
        f"{rate.pile_hours_all:,.2f} on {rate.cores}"
    )


def _cut(text: str) -> str:
    return text if len(text) <= 72 else f"{text[:34]} ... {text[-34:]}"
