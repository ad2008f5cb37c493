"""`lmray eval`: the whole validation split, by the newest checkpoint of a run."""

from typing import Annotated

import typer

from lmray.cli.options import DEFAULT_ROOT, Json, Root, find_run, locate


def evaluate_run(
    run: Annotated[str, typer.Argument(help="A run: its directory or the beginning of its id.")],
    tokens: Annotated[
        str,
        typer.Option(help="Token dataset whose validation split is read; default: the run's own."),
    ] = "",
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Measure a run's loss on a whole validation split."""
    from lmray.cli.show import progress, result
    from lmray.errors import PreflightError
    from lmray.experiments.trained import load_trained, open_data
    from lmray.training.evaluation import evaluate
    from lmray.training.worker import finite

    trained = load_trained(find_run(run, root))
    if tokens:
        from lmray.dataset import open_splits

        splits = open_splits(locate(tokens, root, "tokens"))
        if splits.tokenizer.fingerprint != trained.tokenizer.fingerprint:
            raise PreflightError(
                f"{splits.directory} was encoded by tokenizer {splits.tokenizer.fingerprint[:12]}, "
                f"the run trained with {trained.tokenizer.fingerprint[:12]}; encode that text with "
                f"the run's"
            )
    else:
        splits = open_data(trained.directory)
    with progress() as show:
        found = evaluate(
            trained.model,
            splits.valid,
            context_length=trained.run.model.context_length,
            batch_size=trained.run.sequences_per_step,
            max_tokens="all",
            device=trained.device,
            progress=show,
        )
    facts = {
        "run": str(trained.directory.path),
        "step": trained.step,
        "loss": finite(found.loss),
        "perplexity": finite(found.perplexity),
        "bits_per_byte": finite(found.bits_per_byte),
        "tokens": found.tokens,
        "bytes": found.bytes,
        "context_length": found.context_length,
    }
    text = (
        f"{trained.directory.path} at step {trained.step:,}: {found.loss:.4f} nats/token, "
        f"perplexity {found.perplexity:.3f}, {found.bits_per_byte:.4f} bits/byte "
        f"on {found.tokens:,} tokens, context {found.context_length}"
    )
    result(facts, text, as_json=json)
