"""`lmray train`: one run, in this process without Ray, or on several workers through Ray Train."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmray.cli.options import DEFAULT_ROOT, Address, Json, Overrides, Root, changes_of, place_data

if TYPE_CHECKING:
    from lmray.config import Run
    from lmray.dataset import Splits
    from lmray.runs.run_directory import RunDirectory


def train(
    changes: Overrides = None,
    config: Annotated[
        str,
        typer.Option(
            help="A preset (tiny, base_ts, base_owt, a_ts, a_owt_tied) or a YAML or JSON file; "
            "tiny, or what RUN has where begins_from=RUN.",
            show_default=False,
        ),
    ] = "",
    again: Annotated[
        bool, typer.Option("--again", help="Discard what this very run left and train it anew.")
    ] = False,
    address: Address = "",
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Train one model; the same command goes on where an interrupted one stopped.

    begins_from=RUN goes on from the end of a run that is done, under what
    else is changed, up to a budget.tokens that counts RUN's too.

    Of a GPU's memory it takes no more than execution.gpu_share.
    """
    import shutil

    from lmray import presets, remote
    from lmray.cli.show import result
    from lmray.config import override, run_id
    from lmray.dataset import open_splits
    from lmray.runs.run_directory import RunDirectory

    asked = changes_of(changes or [], root)
    parent = asked.get("begins_from", "none")
    inherits = parent != "none" and not config
    base = (
        RunDirectory(root / "runs" / parent).config if inherits else presets.load(config or "tiny")
    )
    run = place_data(override(base, asked), root)
    splits = open_splits(run.data.tokens)
    path = root / "runs" / run_id(run, splits.digest)
    if again:
        remote.remove(path)
        shutil.rmtree(path, ignore_errors=True)
    directory = _train(run, splits, root / "runs", address)
    facts = {"run": str(directory.path), "status": directory.status}
    facts |= {key: directory.facts[key] for key in ("step", "tokens") if key in directory.facts}
    facts |= {f"validation_{key}": value for key, value in directory.final_validation().items()}
    result(facts, _sentence(directory), as_json=json)
    if directory.status == "preempted":
        raise typer.Exit(130)


def _train(run: "Run", splits: "Splits", runs: Path, address: str) -> "RunDirectory":
    from lmray.cli.show import bars, err

    with bars("facts") as drawn:
        task = drawn.add_task("train", total=1.0, facts="")

        def report(record: dict[str, Any]) -> None:
            if record["kind"] == "validation" and not err.is_terminal:
                err.print(
                    f"step {record['step']}/{run.steps}: validation loss {_number(record['loss'])} "
                    f"({record['scope']}), {_number(record['bits_per_byte'])} bits/byte"
                )
            if record["kind"] == "train":
                facts = f"loss {_number(record['loss'])}  {record['tokens_per_s']:,.0f} tokens/s"
                drawn.update(task, completed=record["progress"], facts=facts)

        if run.execution.workers == 1:
            from lmray.runs.execute import execute

            with _interruptible() as interrupted:
                return execute(run, splits, runs, report=report, interrupted=interrupted)
        from lmray.distributed.cluster import grows, nodes, ray_session
        from lmray.distributed.train import train_on_workers
        from lmray.sweeps.places import at_once

        with (
            ray_session(address, shared=runs),
            _following(run, splits.digest, runs, report),
        ):
            at_once(run.execution, nodes(), stated=1, grows=grows)
            try:
                return train_on_workers(run, splits, runs)
            except SystemExit:
                # Ray Train's answer to Ctrl-C.
                err.print("interrupted; the same command goes on from the last checkpoint")
                raise typer.Exit(130) from None


@contextmanager
def _following(
    run: "Run", digest: str, runs: Path, report: Callable[[dict[str, Any]], None]
) -> Iterator[None]:
    """Reports what workers elsewhere write to metrics.jsonl, as they write it."""
    from lmray.config import run_id
    from lmray.storage import read_lines
    from lmray.threads import repeating

    path = runs / run_id(run, digest) / "metrics.jsonl"
    seen = len(read_lines(path))

    def follow() -> None:
        nonlocal seen
        records = read_lines(path)
        # A run that goes on from a checkpoint first cuts off what came after it.
        seen = min(seen, len(records))
        for record in records[seen:]:
            report(record)
        seen = len(records)

    with repeating(follow, every_s=0.5):
        yield


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Makes SIGTERM and Ctrl-C ask for a last checkpoint; the second of them stops at once."""
    requested = threading.Event()

    def request(number: int, frame: object) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"


def _sentence(directory: "RunDirectory") -> str:
    facts, validation = directory.facts, directory.final_validation()
    text = f"{directory.path}: {directory.status}"
    text += f" after {facts['tokens']:,} tokens" if "tokens" in facts else ""
    if before := directory.began_at_tokens:
        text += f", {before:,} of them those of {directory.config.begins_from}"
    if validation:
        text += (
            f"; validation loss {_number(validation['loss'])} nats/token "
            f"(perplexity {_number(validation['perplexity'])}, "
            f"{_number(validation['bits_per_byte'])} bits/byte) "
            f"on {validation['scored_tokens']:,} tokens"
        )
    if directory.status == "preempted":
        text += "; the same command goes on from here"
    return text
