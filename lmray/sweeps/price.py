"""What a sweep will take before it starts, what it took after, and which sweeps are refused."""

import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmray.accounting import training_flops
from lmray.config import Run
from lmray.errors import PreflightError
from lmray.machine import GB
from lmray.runs.run_directory import RunDirectory
from lmray.storage import read_json, write_json
from lmray.sweeps.answers.tables import Sweep
from lmray.sweeps.constraints import memory_needed
from lmray.sweeps.disk_limit import occupied
from lmray.sweeps.ledger import read_events
from lmray.sweeps.losers import kept_bytes, loser_bytes
from lmray.sweeps.space import Space


@dataclass(frozen=True)
class Price:
    """What a sweep takes if no trial is stopped early."""

    trials: int
    tokens: int
    """Trained by all trials."""
    flops: float
    """Of the training's matrix products."""
    tokens_per_s: float
    """Of one trial of the base, as measured or stated."""
    at_once: int
    """Trials that run at a time."""
    hours: float
    """Wall time; each trial's speed is the base's by the ratio of their operations a token."""
    memory_bytes: int
    """Of the largest trial: its process's on a CPU, else by lmray.accounting."""
    disk_bytes: int
    """Of the checkpoints that all trials keep if none is stopped or diverges: what losers leave of
    theirs is less, and no part of it."""
    loser_bytes: int = 0
    """Of those that are left of the largest trial if it is stopped or diverges."""
    gpu_bytes: int = 0
    """Of a GPU that the largest trial takes, CUDA's context aside: what the base was seen to take,
    by the ratio of lmray.accounting; 0 where nothing was seen, and memory_bytes is all there is."""

    def sentence(self) -> str:
        """The price in one line."""
        seen = f" ({_gb(self.gpu_bytes)} of a GPU's as measured)" if self.gpu_bytes else ""
        return (
            f"{self.trials} trials, {self.tokens:,} tokens, {self.flops:.3g} FLOP; at most "
            f"{duration(self.hours)}, {self.at_once} at a time at {self.tokens_per_s:,.0f} "
            f"tokens/s each; {_gb(self.memory_bytes)} of memory a trial{seen}, "
            f"{_gb(self.disk_bytes)} of checkpoints, {_gb(self.loser_bytes)} of a stopped trial"
        )


def duration(hours: float) -> str:
    """Hours in the unit one would say them in."""
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.1f} minutes" if hours < 2 else f"{hours:.1f} hours"


def _gb(count: float) -> str:
    return f"{count / 1e9:.3g} GB"


def price(
    space: Space,
    valid_tokens: int,
    *,
    tokens_per_s: float,
    at_once: int,
    gpu_bytes: int = 0,
    on_cpu: bool = False,
) -> Price:
    """The price of all of a space's combinations; a search's later ones cost what its first do.

    `valid_tokens` are those of the validation split, `gpu_bytes` what the base was seen to take of
    a GPU, 0 if it was not looked at, `on_cpu` whether the trials train on a CPU.
    """
    runs = list({run.model_dump_json(): run for _, run in space.runs()}.values())
    unknown = space.most_combinations() - len(space.combinations())
    scale = 1 + unknown * len(space.seeds) / len(runs)
    base_rate = tokens_per_s * _flops_per_token(space.base)
    seconds, work, tokens = 0.0, 0.0, 0.0
    for run in runs:
        trained = run.training_tokens
        per_token = _flops_per_token(run)
        # A forward pass is a third of a training step.
        whole = per_token * (trained + _evaluated(run, valid_tokens) / 3) / base_rate
        limit = math.inf if run.budget.seconds == "none" else run.budget.seconds
        share = min(1.0, limit / whole)
        seconds += share * whole
        work += share * per_token * trained
        tokens += share * trained
    disk = sum(kept_bytes(run) for run in runs)
    needed = max(memory_needed(run) for run in runs)
    return Price(
        trials=round(scale * len(runs)),
        tokens=round(scale * tokens),
        flops=scale * work,
        tokens_per_s=tokens_per_s,
        at_once=at_once,
        hours=scale * seconds / at_once / 3600,
        memory_bytes=space.process_memory() if on_cpu else needed,
        disk_bytes=round(scale * disk),
        loser_bytes=max(loser_bytes(run, space.losers) for run in runs),
        gpu_bytes=gpu_bytes * needed // memory_needed(space.base),
    )


def _flops_per_token(run: Run) -> float:
    return training_flops(run.model, run.model.context_length) / run.model.context_length


def _evaluated(run: Run, valid_tokens: int) -> int:
    """Validation tokens read: the prefix at each interval, the whole split at the end."""
    trained = run.training_tokens
    times = 1 + math.ceil(trained / run.evaluation.interval_tokens)
    return times * min(run.evaluation.prefix_tokens, valid_tokens) + valid_tokens


def check_price(
    asked: Price, folder: Path, *, max_hours: float, max_disk_gb: float = math.inf
) -> None:
    """Refuses a sweep that takes too long, too much disk, or more than there is for `folder`.

    Raises PreflightError saying which limit and how to go on.
    """
    if asked.hours > max_hours:
        raise PreflightError(
            f"the sweep takes up to {duration(asked.hours)} and --max-hours={max_hours:g}; try "
            f"fewer values or tokens, raise --max-hours, or say --yes"
        )
    if asked.disk_bytes > max_disk_gb * GB:
        raise PreflightError(
            f"the sweep's checkpoints take {_gb(asked.disk_bytes)} if no trial is stopped and "
            f"--max-disk={max_disk_gb:g}; lower execution.keep_checkpoints, raise --max-disk, or "
            f"say --yes: a stopped trial leaves {_gb(asked.loser_bytes)} then (LOSERS), and the "
            f"sweep ends where it passes the limit"
        )
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir()
    )
    free = shutil.disk_usage(existing).free
    if asked.disk_bytes > free:
        raise PreflightError(
            f"the sweep's checkpoints take {_gb(asked.disk_bytes)} and {existing} has "
            f"{_gb(free)} free; lower execution.keep_checkpoints, free some space, or say --yes"
        )


def write_price(directory: Path, asked: Price) -> None:
    """Leaves price.json in a sweep's directory."""
    write_json(directory / "price.json", asdict(asked))


def read_price(directory: Path) -> Price | None:
    """What was said before the sweep started; None if it started without a price."""
    path = directory / "price.json"
    return Price(**read_json(path)) if path.exists() else None


def taken(sweep: Sweep, runs: Path) -> dict[str, Any]:
    """What a sweep has taken so far, under the names of Price."""
    ids = {row.trial.id: row for row in sweep.rows}
    begun = [i for i, row in ids.items() if row.status != "waiting"]
    times = [event.facts["time"] for event in read_events(sweep.directory / "ledger.jsonl")]
    records = [r for i in begun for r in RunDirectory(runs / i).records("train")]
    flops = sum(training_flops(row.trial.run.model, row.own_tokens) for row in ids.values())
    return {
        "trials": len(begun),
        "tokens": sum(row.own_tokens for row in ids.values()),
        "flops": flops,
        "hours": (max(times) - min(times)) / 3600 if times else 0.0,
        "memory_bytes": max((r.get("peak_memory_bytes", 0) for r in records), default=0),
        "disk_bytes": occupied(runs / i for i in begun),
    }


def against_taken(asked: Price, took: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The price beside what was taken, as a table."""
    lines = {
        "trials": ("trials", str),
        "tokens": ("tokens", "{:,}".format),
        "flops": ("training FLOP", "{:.3g}".format),
        "hours": ("wall time", duration),
        "memory_bytes": ("memory of a trial", _gb),
        "disk_bytes": ("disk", _gb),
    }
    said = asdict(asked)
    rows = [[name, show(said[key]), show(took[key])] for key, (name, show) in lines.items()]
    return ["", "price, at most", "took"], rows
