"""The picture of sharpness at checkpoints beside what each learning rate can bear."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from lmray.runs.run_directory import RunDirectory
from lmray.runs.sharpness import over_limit, read_sharpness
from lmray.sweeps.answers.plots import STYLE, save
from lmray.sweeps.answers.tables import Row, Sweep

Measured = list[tuple[Row, list[dict[str, Any]]]]


def measured(sweep: Sweep, runs: Path) -> Measured:
    """The trials of which sharpness beside a limit is known, with their records."""
    found = [(row, read_sharpness(RunDirectory(runs / row.trial.id))) for row in sweep.trials]
    limited = [(row, [r for r in records if over_limit(r) is not None]) for row, records in found]
    return [(row, records) for row, records in limited if records]


def sharpness(sweep: Sweep, found: Measured, path: Path) -> None:
    """Sharpness over tokens with each trial's limit dotted, and its share of the limit."""
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(12, 4.4), layout="constrained")
        own, share = drawn.subplots(1, 2)
        colours = matplotlib.colormaps["viridis"]
        for number, (row, records) in enumerate(found):
            colour = colours(0.85 * number / max(1, len(found) - 1))
            tokens = [r["tokens"] for r in records]
            sharp = [r.get("preconditioned", r["sharpness"]) for r in records]
            own.plot(tokens, sharp, "o-", color=colour, markersize=4)
            own.plot(tokens, [r["limit"] for r in records], ":", color=colour)
            label = f"{row.trial.name}  ({row.status})"
            shares = [over_limit(r) for r in records]
            share.plot(tokens, shares, "o-", color=colour, markersize=4, label=label)
        share.axhline(1, color="#b3361e", linewidth=1, linestyle=":")
        preconditioned = any("preconditioned" in r for _, records in found for r in records)
        kind = "preconditioned sharpness" if preconditioned else "sharpness"
        own.set_title(f"{kind}, dotted: its limit")
        share.set_title(f"{kind} over its limit")
        for axes in (own, share):
            axes.set_yscale("log")
            axes.set_xlabel("training tokens")
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        place: Any = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        share.legend(fontsize=7, frameon=False, **place)
        save(drawn, path)
