"""`lmray quickstart`: from a corpus to a sweep's report on one machine, in minutes."""

import math
from typing import Annotated

import typer

from lmray.cli.options import DEFAULT_ROOT, Address, Overrides, Root

PROMPTS = {"stdlib": "    def __init__(self", "tinystories": "Once upon a time"}
"""How the sample text begins, by corpus; other texts begin at a document's start."""


def quickstart(
    changes: Overrides = None,
    corpus: Annotated[
        list[str],
        typer.Option(
            help="A known corpus or a text file (repeat for more); stdlib needs no network."
        ),
    ] = ["stdlib"],  # noqa: B006 - typer copies it
    vocab_size: Annotated[int, typer.Option(help="Ids of the tokenizer.")] = 2048,
    address: Address = "",
    root: Root = DEFAULT_ROOT,
) -> None:
    """Train a tokenizer, encode a corpus, sweep the learning rate, write a report."""
    from hashlib import sha256

    from lmray.cli.corpus import prepare_sources
    from lmray.cli.data import build_dataset
    from lmray.cli.show import err, out, progress
    from lmray.cli.sweep_run import carry_out, leave, show_trials
    from lmray.cli.tokenizer import train_tokenizer
    from lmray.config import parse_assignments
    from lmray.machine import total_memory
    from lmray.runs.run_directory import RunDirectory
    from lmray.runs.samples import SAMPLING
    from lmray.runs.trained import continue_text, load_trained
    from lmray.sweeps.answers.report import answer
    from lmray.sweeps.disk_limit import DiskLimit
    from lmray.sweeps.space_file import load_space
    from lmray.tokenizer.build import Recipe

    with progress() as show:
        prepared = prepare_sources(corpus, [], root, show)
        name = f"quickstart-{prepared.name}-{vocab_size}"
        err.print(f"[bold]1[/bold] tokenizer of {vocab_size:,} ids")
        tokenizer, _ = train_tokenizer(
            prepared, root, name, Recipe(vocab_size), 1, address, show, memory=total_memory() // 2
        )
        err.print("[bold]2[/bold] token shards")
        tokens = root / "tokens" / name
        build_dataset(prepared, tokenizer, tokens, 1, address, show)
    fixed = {"data.tokens": str(tokens), "model.vocab_size": vocab_size}
    space = load_space("quickstart").with_overrides(parse_assignments(changes or []) | fixed)
    if changes:
        name += f"-{sha256(' '.join(sorted(changes)).encode()).hexdigest()[:6]}"
    err.print(
        f"[bold]3[/bold] sweep of {len(space.runs())} trials of {space.base.budget.tokens:,} tokens"
    )
    directory, runs = root / "sweeps" / name, root / "runs"
    limit = DiskLimit(directory, runs, math.inf)
    sweep, report = carry_out(space, directory, runs, address, limit)
    show_trials(sweep, as_json=False, runs=root / "runs")
    if sweep.best is not None:
        trained = load_trained(RunDirectory(root / "runs" / sweep.best.trial.id))
        prompt = PROMPTS.get(prepared.name, "")
        (written,) = continue_text(trained, prompt, max_new_tokens=100, sampling=SAMPLING, seed=0)
        out.print("\n[bold]the best model writes:[/bold]")
        print(prompt + written.text)
    out.print(f"\n{answer(sweep)}\nreport: {report}", markup=False)
    leave(sweep, limit)
