"""What a sweep found, as rows: every number comes from its ledger and its run directories."""

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmray.runs.run_directory import RunDirectory
from lmray.sweeps.answers.confidence import Estimate, paired
from lmray.sweeps.axes import (
    Combination,
    Integer,
    Uniform,
    branches,
    choices,
    identity,
    shown,
    spoken,
)
from lmray.sweeps.ledger import Status, read_events, statuses
from lmray.sweeps.search import Population
from lmray.sweeps.space import Space, Trial
from lmray.sweeps.sweep_directory import read_space

_MEASURED = ("loss", "bits_per_byte", "perplexity", "tokens", "seconds")
_INTERVAL = ("loss_low", "loss_high")
_MEASURED_AT = ("done", "stopped", "diverged", "paused")


@dataclass(frozen=True)
class Row:
    """One trial: what it tried, how it ended, what it measured."""

    trial: Trial
    status: Status
    measured: dict[str, Any]
    """loss (nats/token), bits_per_byte, perplexity, tokens (trained), seconds; perhaps not all.

    A done trial's are of the whole validation split, with loss_low and loss_high where its run has
    an interval over documents; a stopped one's of the prefix at its rung.
    """
    curve: list[dict[str, Any]]
    """Its validation records on the prefix."""
    values: tuple[Any, ...]
    """Of the space's axes, in their order."""
    began_at_tokens: int = 0
    """What the run that it began from had trained."""

    @property
    def own_tokens(self) -> int:
        """Tokens that it trained itself."""
        return max(0, (self.measured.get("tokens") or 0) - self.began_at_tokens)

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
    def best_combination(self) -> "Summary | None":
        """That of the lowest mean over seeds; None while no trial is done."""
        return best_of(summaries(self.compared))

    @property
    def best(self) -> Row | None:
        """The done trial of lowest loss of the best combination; None while there is none."""
        group = self.best_combination
        done = [row for row in group.rows if row.status == "done"] if group else []
        return min(done, key=lambda row: row.loss, default=None)

    @property
    def compared(self) -> "Sweep":
        """The trials that are compared with each other: all.

        Of a population those of most tokens, for a later generation goes on from an earlier one.
        """
        if not isinstance(self.space.search, Population):
            return self
        done = [row.trial.run.budget.tokens for row in self.rows if row.status == "done"]
        last = [row for row in self.rows if row.trial.run.budget.tokens == max(done, default=0)]
        return replace(self, rows=last)

    @property
    def trials(self) -> list[Row]:
        """The rows, but of those whose runs are equal the last alone."""
        return list({row.trial.id: row for row in self.rows}.values())

    @property
    def budget_tokens(self) -> int:
        """Tokens all trials would have trained without early stopping."""
        return sum(row.trial.run.training_tokens - row.began_at_tokens for row in self.trials)

    @property
    def trained_tokens(self) -> int:
        """Tokens the trials did train."""
        return sum(row.own_tokens for row in self.trials)


def read_sweep(directory: Path, runs: Path) -> Sweep:
    """Reads sweeps/<name>/ and the runs it names.

    Raises PreflightError or CorruptionError if they are not there or not whole.
    """
    space, data_digest = read_space(directory)
    events = read_events(directory / "ledger.jsonl")
    stands = statuses(events)
    ended = {event.trial: event.facts for event in events if event.kind in _MEASURED_AT}
    rows = []
    for trial in space.asked(data_digest):
        status = stands.get(trial.id, "waiting")
        facts = ended[trial.id] if status in _MEASURED_AT else {}
        if status == "done" and facts["loss"] is None:
            status = "diverged"  # a ledger of before the referee said so itself
        measured = {key: facts[key] for key in _MEASURED if facts.get(key) is not None}
        run = RunDirectory(runs / trial.id)
        records = run.records("validation")
        for record in records:
            if status == "done" and record["scope"] == "all":
                measured |= {k: record[k] for k in _INTERVAL if record.get(k) is not None}
        # A worker that Ray stopped may be a report ahead, an audit trains a stopped one to its end;
        # the ledger says where the sweep stopped it.
        horizon = facts.get("tokens", float("inf"))
        curve = [r for r in records if r["scope"] == "prefix" and r["tokens"] <= horizon]
        values = tuple(trial.value(key) for key in space.axes)
        rows.append(Row(trial, status, measured, curve, values, run.began_at_tokens))
    rows.sort(key=lambda row: _place(space, row.trial))
    return Sweep(directory, space, rows)


def _place(space: Space, trial: Trial) -> list[tuple[int, Any]]:
    """Where a trial stands among others: by the order of choices, by size along ranges.

    Generations of a population come one after the other.
    """
    generation = trial.run.budget.tokens if isinstance(space.search, Population) else 0
    place: list[tuple[int, Any]] = [(0, generation)]
    for key, axis in space.axes.items():
        value = trial.value(key)
        listed = [leaf for _, leaf in branches(axis) if not isinstance(leaf, Uniform | Integer)]
        known = [choice for leaf in listed for choice in choices(leaf)]
        if isinstance(value, int | float):
            place.append((0, value))
        else:
            place.append((1, known.index(value) if value in known else len(known)))
    return [*place, (0, trial.changes["seed"])]


def columns(space: Space) -> list[str]:
    """Headings of `cells`: the varied keys by their last word, then status and measurements."""
    varied = [key.rpartition(".")[2] for key in space.axes]
    return [*varied, "seed", "status", *_MEASURED, "run"]


def cells(row: Row) -> list[Any]:
    """One row of the table; an absent measurement is an empty string."""
    measured = [row.measured.get(key, "") for key in _MEASURED]
    return [*_values(row), row.status, *measured, row.trial.id]


def _values(row: Row) -> list[Any]:
    """The values of the axes and the seed."""
    return [*row.values, row.trial.changes["seed"]]


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
    texts = [shown(value) for value in _values(row)]
    texts.append(row.status + (" *" if row is best else ""))
    texts.append(f"{measured['loss']:.4f}" if "loss" in measured else "-")
    texts.append(f"{measured['bits_per_byte']:.4f}" if "bits_per_byte" in measured else "-")
    texts.append(f"{measured['perplexity']:.2f}" if "perplexity" in measured else "-")
    texts.append(f"{measured['tokens']:,}" if "tokens" in measured else "-")
    texts.append(f"{measured['seconds']:.1f}" if "seconds" in measured else "-")
    return [*texts, row.trial.id]


@dataclass(frozen=True)
class Summary:
    """The seeds of one combination, together."""

    rows: tuple[Row, ...]

    @property
    def values(self) -> tuple[Any, ...]:
        """Of the space's axes, in their order."""
        return self.rows[0].values

    @property
    def combination(self) -> Combination:
        """The values of the axes that are there."""
        return self.rows[0].trial.combination

    @property
    def losses(self) -> dict[int, float]:
        """Final losses of the trials that are done, by seed."""
        return {row.trial.changes["seed"]: row.loss for row in self.rows if row.status == "done"}

    @property
    def loss(self) -> Estimate:
        """Final loss over the seeds that are done."""
        return Estimate(tuple(self.losses.values()))

    @property
    def name(self) -> str:
        """The combination as a reader says it."""
        return spoken(self.combination)

    def over(self, other: "Summary") -> Estimate:
        """Loss above the other's, paired by seed."""
        return paired(self.losses, other.losses)


def summaries(sweep: Sweep) -> list[Summary]:
    """The combinations with their seeds, in the order of the axes."""
    groups: dict[str, list[Row]] = {}
    for row in sweep.rows:
        groups.setdefault(identity(row.trial.combination), []).append(row)
    return [Summary(tuple(rows)) for rows in groups.values()]


def best_of(groups: list[Summary]) -> Summary | None:
    """The lowest mean among those of which most seeds are done; None while none is."""
    most = max((len(group.losses) for group in groups), default=0)
    done = [group for group in groups if group.losses and len(group.losses) == most]
    return min(done, key=lambda group: group.loss.mean, default=None)


def reference(sweep: Sweep, groups: list[Summary]) -> Summary | None:
    """What the others are compared with: the space's baseline, or without one the best."""
    if sweep.space.baseline:
        groups = [group for group in groups if sweep.space.is_baseline(group.combination)]
    return best_of(groups)
