"""The combinations of a sweep side by side: loss over seeds, differences, what each one costs."""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from lmray.accounting import num_parameters, over_swiglu, parameters, training_flops
from lmray.config import flatten
from lmray.runs.run_directory import RunDirectory
from lmray.sweeps.answers.confidence import LEVEL, Estimate
from lmray.sweeps.answers.tables import Summary, Sweep, reference, summaries
from lmray.sweeps.axes import shown

Table = tuple[list[str], list[list[str]]]
"""A header and rows, as people read them."""


def over_seeds(sweep: Sweep) -> Table:
    """Mean, spread, confidence and count of each combination, and its difference to the others."""
    groups = summaries(sweep)
    base = reference(sweep, groups)
    interval = f"{LEVEL:.0%} interval".replace("%", " %")
    to = "baseline" if sweep.space.baseline else "best"
    header = [*_headings(sweep), "mean loss", "sd", interval, "done", f"difference to {to}"]
    rows = []
    for group in groups:
        loss = group.loss
        difference = "-"
        if base is not None and group.losses and group is not base:
            difference = signed(group.over(base))
        numbers = [number(loss.mean), number(loss.spread), _interval(loss)]
        done = f"{loss.n} of {len(group.rows)}"
        rows.append([*map(shown, group.values), *numbers, done, difference])
    return header, rows


def _headings(sweep: Sweep) -> list[str]:
    return [key.rpartition(".")[2] for key in sweep.space.axes]


def number(value: float) -> str:
    """Four digits, or a dash for what is not known."""
    return f"{value:.4f}" if math.isfinite(value) else "-"


def _interval(estimate: Estimate) -> str:
    if math.isnan(estimate.margin):
        return "-"
    low, high = estimate.mean - estimate.margin, estimate.mean + estimate.margin
    return f"{low:.4f} to {high:.4f}"


def signed(difference: Estimate) -> str:
    """A difference with its margin, as in +0.0123 ± 0.0040 (n = 3)."""
    if difference.n < 2:
        return f"{difference.mean:+.4f}" if difference.n else "-"
    return f"{difference.mean:+.4f} ± {difference.margin:.4f} (n = {difference.n})"


def switches(sweep: Sweep) -> Table:
    """What each combination's run differs in from the baseline's, key by key, found by comparing.

    Without a baseline it is the base of the space.
    """
    own = [g for g in summaries(sweep) if sweep.space.is_baseline(g.combination)]
    base = flatten(own[0].rows[0].trial.run if own else sweep.space.base)
    rows = []
    for group in summaries(sweep):
        values = flatten(group.rows[0].trial.run)
        differing = [key for key in values if values[key] != base[key] and key != "seed"]
        told = ", ".join(f"{key}: {shown(base[key])} -> {shown(values[key])}" for key in differing)
        rows.append([*map(shown, group.values), told or "nothing"])
    return [*_headings(sweep), "differs from the baseline in"], rows


@dataclass(frozen=True)
class Cost:
    """What one combination takes."""

    parameters: int
    flops: int
    """Of the training of one trial to its end."""
    batch: int
    """Sequences a step."""
    tokens_per_s: float
    """Median over the records of all seeds; NaN while there is none."""
    peak_memory_bytes: float
    """Highest of all seeds; NaN while there is none."""


def cost(group: Summary, runs: Path) -> Cost:
    """What a combination takes, by accounting and as it was measured."""
    run = group.rows[0].trial.run
    records = [r for row in group.rows for r in RunDirectory(runs / row.trial.id).records("train")]
    speeds = [record["tokens_per_s"] for record in records]
    peaks = [record["peak_memory_bytes"] for record in records if "peak_memory_bytes" in record]
    return Cost(
        num_parameters(run.model),
        training_flops(run.model, run.training_tokens - group.rows[0].began_at_tokens),
        run.sequences_per_step,
        statistics.median(speeds) if speeds else math.nan,
        max(peaks, default=math.nan),
    )


def costs(sweep: Sweep, runs: Path) -> Table:
    """What each combination costs; without rows if all cost the same, also as measured."""
    groups = summaries(sweep)
    found = [cost(group, runs) for group in groups]
    header = ["parameters", "training FLOP", "batch", "tokens/s", "peak memory (GB)"]
    told = [
        [
            f"{each.parameters:,}",
            f"{each.flops:.4g}",
            str(each.batch),
            "-" if math.isnan(each.tokens_per_s) else f"{each.tokens_per_s:,.0f}",
            "-" if math.isnan(each.peak_memory_bytes) else f"{each.peak_memory_bytes / 1e9:.3f}",
        ]
        for each in found
    ]
    ffns = [_over_swiglu(sweep, group) for group in groups]
    if set(ffns) != {"-"}:
        header.append("FFN parameters over SwiGLU")
        told = [[*each, ffn] for each, ffn in zip(told, ffns, strict=True)]
    if all(each == told[0] for each in told):
        return header, []
    rows = [[*map(shown, group.values), *each] for group, each in zip(groups, told, strict=True)]
    return [*_headings(sweep), *header], rows


def _over_swiglu(sweep: Sweep, group: Summary) -> str:
    """What an FFN of another kind has over a SwiGLU of the base's width."""
    base, model = sweep.space.base.model, group.rows[0].trial.run.model
    if model.ffn == "swiglu":
        return "-"
    over = over_swiglu(model, base.d_ff if base.ffn == "swiglu" else "auto")
    share = 100 * over / (parameters(model)["ffn"] - over)
    return f"{over:+,} ({share:+.1f} %)"
