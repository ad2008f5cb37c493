"""Pictures that compare combinations: seeds, differences to the baseline, batch sizes."""

import math
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, ScalarFormatter

from lmray.config import Run
from lmray.sweeps.answers.comparison import cost
from lmray.sweeps.answers.confidence import Estimate
from lmray.sweeps.answers.plots import STYLE, figure, save
from lmray.sweeps.answers.tables import Summary, Sweep, best_of, reference, summaries
from lmray.sweeps.axes import Variants
from lmray.sweeps.constraints import memory_needed

_BLUE, _GREY, _RED = "#2a6f97", "#999999", "#b3361e"


def seeds(sweep: Sweep, path: Path) -> None:
    """Every seed's final loss, and each combination's mean with its confidence interval."""
    groups = [group for group in summaries(sweep) if group.losses]
    _rows(
        path,
        [(group.name, group.loss, list(group.losses.values())) for group in groups],
        f"{sweep.space.name}: the seeds of each combination",
        "validation loss (nats/token): seeds, mean, 95 % interval",
    )


def differences(sweep: Sweep, path: Path) -> None:
    """Each combination's loss above the baseline's, seed by seed, mean and confidence interval."""
    groups = summaries(sweep)
    base = reference(sweep, groups)
    lines = []
    if base is not None:
        for group in groups:
            over = group.over(base)
            if group is not base and over.n:
                lines.append((group.name, over, list(over.values)))
    lines.sort(key=lambda line: -line[1].mean)
    against = f"{base.name}: {base.loss.mean:.4f}" if base is not None else "no baseline yet"
    label = "validation loss above the baseline's (nats/token): pairs of seeds, mean, 95 % interval"
    _rows(path, lines, f"{sweep.space.name}: difference to {against}", label, zero=True)


def _rows(
    path: Path,
    lines: list[tuple[str, Estimate, list[float]]],
    title: str,
    label: str,
    *,
    zero: bool = False,
) -> None:
    """A line for each combination, the first at the top: points, and a mean with its margin."""
    with figure(path, (8, 1.4 + 0.36 * max(1, len(lines)))) as axes:
        for place, (_, estimate, values) in enumerate(lines):
            axes.plot(values, [place] * len(values), "o", color=_GREY, markersize=4, alpha=0.7)
            margin = 0.0 if math.isnan(estimate.margin) else estimate.margin
            sure = zero and abs(estimate.mean) > margin > 0
            colour = (_RED if estimate.mean > 0 else "#2e7d32") if sure else _BLUE
            look: Any = {"color": colour, "capsize": 4, "linewidth": 1.8}
            axes.errorbar([estimate.mean], [place], xerr=[margin], fmt="D", markersize=5, **look)
        if zero:
            axes.axvline(0, color="#444444", linewidth=1)
        axes.set_yticks(range(len(lines)), [name for name, *_ in lines], fontsize=9)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_xlabel(label, fontsize=9)
        axes.set_title(title)


def batches(sweep: Sweep, runs: Path, path: Path) -> None:
    """Loss, throughput and peak memory against the batch, for each variant a line.

    Where the learning rate is tried at several values, the loss is that of the best.
    """
    lines = _by_variant(sweep)
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(11, 3.8), layout="constrained")
        loss, speed, memory = drawn.subplots(1, 3)
        colours = matplotlib.colormaps["viridis"]
        for index, (name, groups) in enumerate(lines.items()):
            colour = colours(0.85 * index / max(1, len(lines) - 1))
            sizes = sorted(groups)
            best = [(size, best_of(groups[size])) for size in sizes]
            done = [(size, group) for size, group in best if group is not None]
            loss.errorbar(
                [size for size, _ in done],
                [group.loss.mean for _, group in done],
                yerr=[0.0 if group.loss.n < 2 else group.loss.margin for _, group in done],
                fmt="o-",
                color=colour,
                capsize=3,
                label=name,
            )
        # What a batch costs is the same whatever its learning rate.
        sizes = sorted({size for groups in lines.values() for size in groups})
        together = [
            cost(
                Summary(tuple(r for v in lines.values() for g in v.get(size, []) for r in g.rows)),
                runs,
            )
            for size in sizes
        ]
        speed.plot(sizes, [each.tokens_per_s for each in together], "o-", color=_BLUE)
        look: Any = {"color": _GREY, "label": "measured, the whole process if on a CPU"}
        memory.plot(sizes, [each.peak_memory_bytes for each in together], "o", **look)
        needed = [memory_needed(_run_at(lines, size)) for size in sizes]
        memory.plot(sizes, needed, "o-", color=_BLUE, label="tensors, by accounting")
        memory.legend(fontsize=8, frameon=False)
        if len(lines) > 1:
            loss.legend(fontsize=8, frameon=False)
        for axes, title in (
            (loss, "validation loss (nats/token)"),
            (speed, "training tokens a second"),
            (memory, "peak memory of a trial (bytes)"),
        ):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.set_xlabel("batch (sequences)")
            axes.set_title(title)
        speed.yaxis.set_major_formatter(EngFormatter(sep=""))
        memory.yaxis.set_major_formatter(EngFormatter(unit="B", sep=""))
        for axes in (speed, memory):
            axes.margins(y=0.15)
            axes.set_ylim(bottom=0)
        save(drawn, path)


def _run_at(lines: dict[str, dict[int, list[Summary]]], size: int) -> Run:
    groups = next(groups for groups in lines.values() if size in groups)
    return groups[size][0].rows[0].trial.run


def _by_variant(sweep: Sweep) -> dict[str, dict[int, list[Summary]]]:
    """The combinations by the value of the variants, if there are any, and by batch."""
    variants = [key for key, axis in sweep.space.axes.items() if isinstance(axis, Variants)]
    found: dict[str, dict[int, list[Summary]]] = {}
    for group in summaries(sweep):
        trial = group.rows[0].trial
        name = ", ".join(str(trial.value(key)) for key in variants)
        by_batch = found.setdefault(name, {})
        by_batch.setdefault(trial.run.sequences_per_step, []).append(group)
    return found
