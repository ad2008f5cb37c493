"""The verbs together, and how an error becomes one line and an exit code."""

import errno
import os
import sys
from typing import Annotated

import typer

import lmray
from lmray.cli import (
    account,
    board,
    cluster,
    corpus,
    data,
    doctor,
    evaluate,
    generate,
    model_formats,
    noise_scale,
    quickstart,
    sharpness,
    submit,
    sweep,
    tokenizer,
    train,
)
from lmray.errors import LmrayError

app = typer.Typer(
    name="lmray",
    help="From raw text to a trustworthy answer about small language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
)
app.command("quickstart")(quickstart.quickstart)
app.add_typer(corpus.app, name="corpus")
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate_run)
app.command("sharpness")(sharpness.sharpness)
app.command("generate")(generate.generate_text)
app.command("noise-scale")(noise_scale.measure)
model_formats.register(app)
app.add_typer(sweep.app, name="sweep")
app.command("board")(board.board)
app.command("submit", context_settings={"allow_interspersed_args": False})(submit.submit)
app.add_typer(cluster.app, name="cluster")
app.command("account")(account.account)
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lmray {lmray.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere on the line).")
    ] = False,
) -> None:
    """What every verb takes."""


def main() -> None:
    """Runs the command line; an error is one line on stderr and an exit code of docs/design.md."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(arguments)
    except (LmrayError, OSError) as error:
        if debug:
            raise
        message, code = _explain(error)
        print(f"error: {message}", file=sys.stderr)
        sys.stdout.flush()
        sys.exit(code)


def _explain(error: LmrayError | OSError) -> tuple[str, int]:
    """One line and an exit code for an error that needs no traceback."""
    if isinstance(error, LmrayError):
        return str(error), error.exit_code
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "the reader of the output went away", 1
    where = f": {error.filename}" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{where}; free some space and run the command again", 1
    return f"{error.strerror or error}{where}; check the path and its permissions", 1
