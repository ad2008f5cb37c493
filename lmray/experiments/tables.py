"""What a sweep found, as rows: every number comes from its ledger and its run directories."""

import csv
import io
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmray.experiments.ledger import RUNNING, read_events, standing
from lmray.experiments.run_directory import RunDirectory
from lmray.experiments.space import Space, Trial
from lmray.experiments.sweep_directory import read_space

_MEASURED = ("loss", "bits_per_byte", "perplexity", "tokens", "seconds")
_INTERVAL = ("loss_low", "loss_high")
_MEASURED_AT = ("done", "stopped", "diverged", "paused")


@dataclass(frozen=True)
class Row:
    """One trial: what it tried, how it ended, what it measured."""

    trial: Trial
    status: str
    """done, stopped, diverged, failed, running (interrupted or under way), paused or waiting."""
    measured: dict[str, Any]
    """loss (nats/token), bits_per_byte, perplexity, tokens (trained), seconds; perhaps not all.

    A done trial's are of the whole validation split, with loss_low and loss_high where its run has
    an interval over documents; a stopped one's of the prefix at its rung.
    """
    curve: list[dict[str, Any]]
    """Its validation records on the prefix."""

    @property
    def loss(self) -> float:
        """Final validation loss in nats/token; infinite for a trial that is not done."""
        return self.measured["loss"] if self.status == "done" else float("inf")


@dataclass(frozen=True)
class Sweep:
    """A sweep's directory, read."""

    directory: Path
    space: Space
    rows: list[Row]
    """In the order of the space's axes and seeds."""

    @property
    def best(self) -> Row | None:
        """The done trial with the lowest loss; None while there is none."""
        done = [row for row in self.rows if row.status == "done"]
        return min(done, key=lambda row: row.loss) if done else None

    @property
    def budget_tokens(self) -> int:
        """Tokens all trials would have trained without early stopping."""
        return sum(row.trial.run.training_tokens for row in self.rows)

    @property
    def trained_tokens(self) -> int:
        """Tokens the trials did train."""
        return sum(row.measured.get("tokens") or 0 for row in self.rows)


def read_sweep(directory: Path, runs: Path) -> Sweep:
    """Reads sweeps/<name>/ and the runs it names.

    Raises PreflightError or CorruptionError if they are not there or not whole.
    """
    space, data_digest = read_space(directory)
    events = read_events(directory / "ledger.jsonl")
    stands = standing(events)
    ended = {event.trial: event.facts for event in events if event.kind in _MEASURED_AT}
    rows = []
    for trial in space.trials(data_digest):
        kind = stands.get(trial.id, "waiting")
        status = "running" if kind in RUNNING else "waiting" if kind == "retried" else kind
        facts = ended[trial.id] if kind in _MEASURED_AT else {}
        measured = {key: facts[key] for key in _MEASURED if facts.get(key) is not None}
        records = RunDirectory(runs / trial.id).records("validation")
        for record in records:
            if kind == "done" and record["scope"] == "all":
                measured |= {k: record[k] for k in _INTERVAL if record.get(k) is not None}
        # A worker that Ray stopped may be a report ahead, an audit trains a stopped one to its end;
        # the ledger says where the sweep stopped it.
        horizon = facts.get("tokens", float("inf"))
        curve = [r for r in records if r["scope"] == "prefix" and r["tokens"] <= horizon]
        rows.append(Row(trial, status, measured, curve))
    axes = [*space.axes, "seed"]
    place = {
        key: {value: i for i, value in enumerate(space.axes.get(key, space.seeds))} for key in axes
    }
    rows.sort(key=lambda row: [place[key][row.trial.changes[key]] for key in axes])
    return Sweep(directory, space, rows)


def columns(space: Space) -> list[str]:
    """Headings of `cells`: the varied keys by their last word, then status and measurements."""
    varied = [key.rpartition(".")[2] for key in space.axes]
    return [*varied, "seed", "status", *_MEASURED, "run"]


def cells(row: Row) -> list[Any]:
    """One row of the table; an absent measurement is an empty string."""
    measured = [row.measured.get(key, "") for key in _MEASURED]
    return [*row.trial.changes.values(), row.status, *measured, row.trial.id]


def as_csv(sweep: Sweep) -> str:
    """The table with full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns(sweep.space))
    writer.writerows(cells(row) for row in sweep.rows)
    return out.getvalue()


def readable(row: Row, best: Row | None) -> list[str]:
    """One row of the table as people read it: rounded, the best one starred."""
    measured = row.measured
    shown = [str(value) for value in row.trial.changes.values()]
    shown.append(row.status + (" *" if row is best else ""))
    shown.append(f"{measured['loss']:.4f}" if "loss" in measured else "-")
    shown.append(f"{measured['bits_per_byte']:.4f}" if "bits_per_byte" in measured else "-")
    shown.append(f"{measured['perplexity']:.2f}" if "perplexity" in measured else "-")
    shown.append(f"{measured['tokens']:,}" if "tokens" in measured else "-")
    shown.append(f"{measured['seconds']:.1f}" if "seconds" in measured else "-")
    return [*shown, row.trial.id]


@dataclass(frozen=True)
class Summary:
    """The seeds of one combination, together."""

    values: tuple[Any, ...]
    losses: list[float]
    """Of the trials that are done."""
    trials: int

    @property
    def mean(self) -> float:
        """Mean loss; NaN if no trial is done."""
        return statistics.fmean(self.losses) if self.losses else float("nan")

    @property
    def spread(self) -> float:
        """Sample standard deviation; NaN below two trials."""
        return statistics.stdev(self.losses) if len(self.losses) > 1 else float("nan")


def summaries(sweep: Sweep) -> list[Summary]:
    """Mean, spread and count over seeds of each combination, in the order of the axes."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in sweep.rows:
        groups.setdefault(tuple(row.trial.changes[key] for key in sweep.space.axes), []).append(row)
    return [
        Summary(values, [row.loss for row in rows if row.status == "done"], len(rows))
        for values, rows in groups.items()
    ]
