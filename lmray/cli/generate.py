"""`lmray generate`: text from a run's checkpoint."""

import sys
from typing import Annotated

import typer

from lmray.cli.options import DEFAULT_ROOT, Checkpoint, Json, Root, find_run
from lmray.errors import UsageError


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
    top_k: Annotated[
        int, typer.Option(min=0, help="Sample among this many of the likeliest; 0 is all.")
    ] = 0,
    min_p: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Least probability relative to the likeliest token."),
    ] = 0.0,
    samples: Annotated[int, typer.Option(min=1, help="Texts, with seeds from --seed on.")] = 1,
    seed: Annotated[int, typer.Option(help="Same seed, same text.")] = 0,
    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream",
            help="Print tokens as they come (one sample, not with --json); default on a terminal.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Checkpoint = "latest",
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Generate text until the end of a document or of the token allowance."""
    if stream and (json or samples > 1):
        other = "--json" if json else f"--samples={samples}"
        raise UsageError(f"--stream prints one text as it comes and not {other}; drop one of them")
    from lmray.cli.show import err, result
    from lmray.generation import Sampling
    from lmray.runs.samples import diversity
    from lmray.runs.trained import continue_text, load_trained, stream_text

    sampling = Sampling(temperature, top_p, top_k, min_p)
    trained = load_trained(find_run(run, root), checkpoint)
    alone = samples == 1 and not json
    if alone and (sys.stdout.isatty() if stream is None else stream):
        print(prompt, end="", flush=True)
        for piece in stream_text(
            trained, prompt, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed
        ):
            print(piece, end="", flush=True)
        print()
        return
    found = continue_text(
        trained,
        prompt,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        samples=samples,
    )
    measured = diversity([written.ids for written in found])
    facts = {
        "run": str(trained.directory.path),
        "prompt": prompt,
        "samples": [
            {"seed": seed + index, "text": written.text, "new_tokens": len(written.ids)}
            for index, written in enumerate(found)
        ],
        "diversity": measured,
    }
    result(facts, "\n\n".join(prompt + written.text for written in found), as_json=json)
    if samples > 1 and not json:
        shares = (f"{key.replace('_', '-')} {measured[key] or 0:.3f}" for key in list(measured)[1:])
        err.print(f"{samples} texts: {', '.join(shares)}", markup=False)
