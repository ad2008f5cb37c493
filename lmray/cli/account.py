"""`lmray account`: what a model costs in parameters, FLOPs, memory, time and money."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lmray.cli.options import Json
from lmray.errors import UsageError

if TYPE_CHECKING:
    from lmray.accounting import Memory
    from lmray.config import Run

GB, GIB = 10**9, 2**30


def account(
    context: typer.Context,
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WHAT] [KEY=VALUE]...",
            help="A preset or file and changes to it; gpt2-small to gpt2-xl; or sgd-toy.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="For training time: A100, H100, H200 ..., as torch names it.")
    ] = "",
    dtype: Annotated[
        Literal["fp32", "tf32", "bf16"], typer.Option(help="What products are computed in.")
    ] = "bf16",
    mfu: Annotated[float, typer.Option(help="Share of the device's peak that is reached.")] = 0.4,
    price: Annotated[float, typer.Option(min=0, help="Of a device-hour, for the cost.")] = 0.0,
    memory_gb: Annotated[
        float, typer.Option(min=0, help="Memory in GB, for the largest batch; 0 asks for none.")
    ] = 0.0,
    measure: Annotated[
        bool, typer.Option("--measure", help="Train two steps and show the memory they took.")
    ] = False,
    json: Json = False,
) -> None:
    """Count parameters, FLOPs and memory of a configuration; estimate time and cost."""
    from lmray.accounting import SHAPES, gpt2_run

    words = what or []
    source = words[0] if words and "=" not in words[0] else ""
    changes = words[1:] if source else words
    if source == "sgd-toy":
        _refuse(context, source, changes, "device", "dtype", "mfu", "price", "memory_gb", "measure")
        _show_toy(json)
        return
    if source in SHAPES:
        _refuse(context, source, changes, "measure")
        # Memory is that of one sequence: a step's 1,024 are not held at once.
        facts = _facts(gpt2_run(source), 1, device, dtype, mfu, price, memory_gb)
        _show({"name": source, "models": _models(source), **facts}, json)
        return
    from lmray import presets
    from lmray.config import Run, override, parse_assignments

    run = override(presets.load(source) if source else Run(), parse_assignments(changes))
    facts = _facts(run, run.sequences_per_step, device, dtype, mfu, price, memory_gb)
    if measure:
        facts["memory"]["measured_peak"] = _measured(run)
    _show(facts, json)


def _refuse(context: typer.Context, source: str, changes: list[str], *options: str) -> None:
    """Raises UsageError for a change, and for one of the options if it was given."""
    if changes:
        raise UsageError(f"{source} takes no changes and {changes[0]!r} is one; drop it")
    for name in options:
        given = context.get_parameter_source(name)
        if given is not None and given.name == "COMMANDLINE":
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{source} takes no {option}, which is for configurations; drop it")


def _facts(
    run: "Run", batch: int, device: str, dtype: Any, mfu: float, price: float, memory_gb: float
) -> dict[str, Any]:
    """`batch` is in sequences, for the memory."""
    from lmray.accounting import (
        estimate,
        forward_flops,
        num_parameters,
        optimizer_flops,
        over_swiglu,
        parameters,
        six_n_d,
        step_flops,
        training_memory,
    )

    model, batches = run.model, run.batches
    tokens = run.training_tokens
    memory = training_memory(model, run.optim.precision)
    flops = batches.cost(run.steps, lambda shape: step_flops(model, shape))
    facts: dict[str, Any] = {
        "parameters": {k: v for k, v in parameters(model).items() if v}
        | {"all": num_parameters(model)},
        "parameters_over_swiglu": over_swiglu(model),
        "forward_flops": forward_flops(model, model.context_length),
        "memory": {"precision": run.optim.precision, **_memory(memory, batch)},
        "training": {
            "tokens": tokens,
            "steps": run.steps,
            "flops": flops,
            "six_n_d": six_n_d(num_parameters(model), tokens),
            "optimizer_flops": run.steps * optimizer_flops(model),
        },
    }
    facts["forward_flops"]["all"] = sum(facts["forward_flops"].values())
    if memory_gb:
        facts["memory"]["largest_batch"] = memory.largest_batch(round(memory_gb * GB))
        facts["memory"]["available"] = round(memory_gb * GB)
    if device:
        found = estimate(flops, device=device, dtype=dtype, mfu=mfu, price_per_hour=price)
        facts["training"] |= {"device": device, "dtype": dtype, "mfu": mfu}
        facts["training"] |= {"seconds": found.seconds, "cost": found.cost}
    return facts


def _memory(memory: "Memory", batch: int) -> dict[str, Any]:
    held = {name: batch * count for name, count in memory.per_sequence.items()}
    return {"batch": batch, "bytes": {**memory.fixed, **held, "all": memory.total(batch)}}


def _measured(run: "Run") -> int:
    from lmray.training.device import resolve_device
    from lmray.training.peak_memory import measured_peak

    device = resolve_device(run.execution.device)
    return measured_peak(run.model, run.sequences_per_step, device, run.optim.precision)


def _show(facts: dict[str, Any], json: bool) -> None:
    from lmray.cli.show import out, result, table

    if json:
        result(facts, "", as_json=True)
        return
    if "models" in facts:
        _show_models(facts["name"], facts["models"])
    table(("parameters", "number"), [(k, f"{v:,}") for k, v in facts["parameters"].items()])
    out.print(f"{facts['parameters_over_swiglu']:+,} against SwiGLU of automatic width\n")
    flops = facts["forward_flops"]
    rows = [(k, f"{v / 1e9:,.3f}", f"{100 * v / flops['all']:.1f}") for k, v in flops.items()]
    table(("forward pass of one sequence", "GFLOP", "%"), rows)
    memory = facts["memory"]
    held = dict(memory["bytes"])
    if "measured_peak" in memory:
        held["measured peak"] = memory["measured_peak"]
    out.print()
    rows = [(name, *_both(count)) for name, count in held.items()]
    title = f"AdamW training in {memory['precision']}, batch {memory['batch']}"
    table((title, "GB", "GiB"), rows)
    if "largest_batch" in memory:
        available, largest = memory["available"] / GB, memory["largest_batch"]
        out.print(f"largest batch in {available:g} GB: {largest:,} sequences")
    training = facts["training"]
    out.print(
        f"\ntraining on {training['tokens']:,} tokens in {training['steps']:,} steps: "
        f"{training['flops']:.3e} FLOP (6ND: {training['six_n_d']:.3e}), "
        f"AdamW {training['optimizer_flops']:.3e}"
    )
    if "seconds" in training:
        hours = training["seconds"] / 3600
        time = f"{60 * hours:,.1f} minutes" if hours < 2 else f"{hours:,.1f} hours"
        time += f" = {hours / 24:,.1f} days" if hours >= 48 else ""
        cost = f", costs {training['cost']:,.2f}" if training["cost"] else ""
        out.print(
            f"{training['device']} in {training['dtype']} at {training['mfu']:.0%} of its peak: "
            f"{time}{cost}"
        )


def _both(count: int) -> tuple[str, str]:
    return f"{count / GB:.3f}", f"{count / GIB:.3f}"


def _models(name: str) -> list[dict[str, Any]]:
    from lmray.accounting import TRAINING_BATCH, TRAINING_STEPS, estimate, six_n_d, variants

    sequences = TRAINING_STEPS * TRAINING_BATCH
    facts: list[dict[str, Any]] = []
    for variant in variants(name):
        flops = {
            "3 x forward": 3 * variant.forward_flops * sequences,
            "6ND": six_n_d(variant.parameters, sequences * 1024),
        }
        days = {k: estimate(v, device="A100", dtype="fp32", mfu=0.5).days for k, v in flops.items()}
        facts.append({**vars(variant), "fp32_bytes": 4 * variant.parameters, "days": days})
    return facts


def _show_models(name: str, facts: list[dict[str, Any]]) -> None:
    from lmray.accounting import TRAINING_BATCH, TRAINING_STEPS
    from lmray.cli.show import out, table

    out.print(f"Three models go by {name}, V = 50,257, S = 1,024:")
    header = ("model", "parameters", "fp32 GB", "GiB", "forward GFLOP", "days", "days by 6ND")
    rows = [
        (
            fact["name"],
            f"{fact['parameters']:,}",
            *_both(fact["fp32_bytes"]),
            f"{fact['forward_flops'] / 1e9:,.1f}",
            *(f"{days:,.0f}" for days in fact["days"].values()),
        )
        for fact in facts
    ]
    table(header, rows)
    out.print(
        f"days: {TRAINING_STEPS:,} steps of {TRAINING_BATCH:,} sequences on one A100 in fp32 "
        f"(19.5 TFLOP/s) at half its peak\n\nThe first of them:"
    )


def _show_toy(json: bool) -> None:
    from lmray.accounting.toy import sgd_toy
    from lmray.cli.show import out, result, table

    rates = (10.0, 100.0, 1000.0)
    losses = {f"lr {rate:g}": sgd_toy(rate) for rate in rates}
    if json:
        result(losses, "", as_json=True)
        return
    rows = [(str(t), *map(_loss, row)) for t, row in enumerate(zip(*losses.values(), strict=True))]
    table(("step", *losses), rows)
    out.print(
        "loss = mean(w^2), w = 5 randn(10, 10); a step multiplies it by "
        "(1 - 2 lr / (100 sqrt(t + 1)))^2"
    )


def _loss(value: float) -> str:
    if value < 1000:
        return f"{value:.2f}"
    return f"{value:,.0f}" if value < 1e6 else f"{value:.3e}"
