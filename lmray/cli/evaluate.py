"""`lmray eval`: a whole split, by a checkpoint of a run."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lmray.cli.options import DEFAULT_ROOT, Checkpoint, Json, Root, find_run, locate

if TYPE_CHECKING:
    from lmray.dataset import Splits
    from lmray.runs.trained import Trained


def evaluate_run(
    run: Annotated[str, typer.Argument(help="A run: its directory or the beginning of its id.")],
    tokens: Annotated[
        str,
        typer.Option(help="Token dataset whose split is read; default: the run's own."),
    ] = "",
    checkpoint: Checkpoint = "latest",
    split: Annotated[
        Literal["valid", "train"], typer.Option(help="Which of its splits.")
    ] = "valid",
    context_length: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens in a window, at most those of training; default: as many.",
            show_default=False,
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens from one window to the next: with less than a window, each token but "
            "those of the first is predicted from more than context length - stride others. "
            "Default: windows side by side.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Documents to generate, to measure how varied they are.")
    ] = 0,
    sample_tokens: Annotated[int, typer.Option(min=1, help="Their length at most.")] = 128,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Measure a run's loss on a whole split, by context, with 95 % intervals over documents.

    All that was measured is left in evaluation.json in the run's directory.
    """
    from lmray import remote
    from lmray.cli.show import progress
    from lmray.runs.evaluated import diversity_beside, evaluate_trained
    from lmray.runs.trained import load_trained, open_data
    from lmray.storage import write_json

    trained = load_trained(find_run(run, root), checkpoint)
    splits = _splits(trained, tokens, root) if tokens else open_data(trained.directory)
    read = splits.valid if split == "valid" else splits.train
    context_length = context_length or trained.run.model.context_length
    with progress() as show:
        found = evaluate_trained(
            trained,
            read,
            context_length=context_length,
            stride=stride or context_length,
            progress=show,
        )
    facts = {
        "run": str(trained.directory.path),
        "step": trained.step,
        "data": str(splits.directory),
        "data_digest": splits.digest,
        "split": split,
        **found,
    }
    if samples:
        facts["diversity"] = diversity_beside(
            trained, read, texts=samples, max_new_tokens=sample_tokens
        )
    _show(facts, as_json=json)
    write_json(trained.directory.path / "evaluation.json", facts)
    remote.publish(trained.directory.path / "evaluation.json")


def _splits(trained: "Trained", tokens: str, root: Any) -> "Splits":
    """Another token dataset, of the tokenizer that the run was trained with."""
    from lmray.dataset import open_splits
    from lmray.errors import PreflightError

    splits = open_splits(locate(tokens, root, "tokens"))
    theirs, ours = splits.tokenizer.fingerprint, trained.tokenizer.fingerprint
    if theirs != ours:
        raise PreflightError(
            f"{splits.directory} was encoded by tokenizer {theirs[:12]}, the run trained with "
            f"{ours[:12]}; encode that text with the run's"
        )
    return splits


def _show(facts: dict[str, Any], *, as_json: bool) -> None:
    from lmray.cli.show import out, result, table

    windows = f"windows of {facts['context_length']} tokens"
    if facts["stride"] < facts["context_length"]:
        windows += f" every {facts['stride']}"
    heading = (
        f"{facts['run']} at step {facts['step']:,} on the {facts['split']} split of "
        f"{facts['data']}: {facts['tokens']:,} tokens, {facts['documents']:,} documents, {windows}"
    )
    result(facts, heading, as_json=as_json)
    if as_json:
        return
    out.print()
    measured = (
        ("nats/token", "loss"),
        ("perplexity", "perplexity"),
        ("bits/byte", "bits_per_byte"),
    )
    table(
        ["", "mean", "95 % from", "to"],
        [
            [name, *(_number(facts[key + end]) for end in ("", "_low", "_high"))]
            for name, key in measured
        ],
    )
    out.print()
    table(
        ["tokens before", "tokens", "nats/token"],
        [
            [_range(row["first"], row["last"]), f"{row['tokens']:,}", _number(row["loss"])]
            for row in facts["loss_by_context"]
        ],
    )
    if "diversity" in facts:
        out.print()
        keys = ("texts", "distinct_1", "distinct_2", "distinct_3", "repetition")
        table(
            ["", "texts", "distinct-1", "distinct-2", "distinct-3", "repetition"],
            [
                [name, *(_number(facts["diversity"][whose][key]) for key in keys)]
                for name, whose in (("written", "model"), ("in the split", "split"))
            ],
        )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
