"""`lmray generate`: text from a run's newest checkpoint."""

from typing import Annotated

import typer

from lmray.cli.options import DEFAULT_ROOT, Json, Root, find_run


def generate_text(
    run: Annotated[str, typer.Argument(help="A run: its directory or the beginning of its id.")],
    prompt: Annotated[
        str, typer.Option(help="The text to go on from; empty begins a document.")
    ] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate at most.")] = 128,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 always takes the likeliest token.")
    ] = 0.8,
    top_p: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Sample among the likeliest tokens of this mass."),
    ] = 0.95,
    seed: Annotated[int, typer.Option(help="Same seed, same text.")] = 0,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Generate text until the end of a document or of the token allowance."""
    from lmray.cli.show import result
    from lmray.experiments.trained import continue_text, load_trained

    trained = load_trained(find_run(run, root))
    text, tokens = continue_text(
        trained,
        prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    facts = {
        "run": str(trained.directory.path),
        "prompt": prompt,
        "text": text,
        "new_tokens": tokens,
    }
    result(facts, prompt + text, as_json=json)
