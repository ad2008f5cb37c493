"""Whether early stopping may be believed: what rungs foretold, what stopping might have missed."""

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lmray.sweeps.answers.tables import Row, Sweep, summaries
from lmray.sweeps.ledger import Event


@dataclass(frozen=True)
class Correlation:
    """How well the order at a rung foretold the order at the end."""

    rung: int
    """Tokens."""
    rho: float
    """Spearman's rank correlation between the losses there and the final ones; NaN if n < 3."""
    n: int
    """Trials whose end is known: they are done, or an audit trained them to it."""


@dataclass(frozen=True)
class Stopped:
    """A trial that was stopped, seen from the winner with its seed."""

    row: Row
    rung: int
    """Where it was stopped, in tokens."""
    behind: float
    """Its loss there over the winner's there, in nats; below 0 it was ahead."""


@dataclass(frozen=True)
class Audit:
    """A stopped trial that was trained to its end."""

    row: Row
    status: str
    """done, or diverged."""
    behind: float
    """Its final loss over the winner's, in nats; below 0 it would have won."""


@dataclass(frozen=True)
class Honesty:
    """What a sweep's own record says about its early stopping."""

    correlations: list[Correlation]
    stopped: list[Stopped]
    """Those least behind first."""
    audits: list[Audit]
    """The best first."""
    seed_spread: float
    """Standard deviation of the winner's loss over seeds; NaN where only one is done."""
    trained_tokens: int
    full_tokens: int
    """Tokens of the same trials without early stopping."""

    def lines(self) -> list[str]:
        """What a reader is told, a sentence each."""
        share = 100 * self.trained_tokens / self.full_tokens
        tokens = f"{self.trained_tokens:,} of {self.full_tokens:,} tokens"
        told = [f"The trials trained {tokens} ({share:.0f} %)."]
        if self.correlations:
            shown = ", ".join(
                f"{'unknown' if math.isnan(each.rho) else f'{each.rho:.2f}'} at {each.rung:,} "
                f"tokens (n = {each.n})"
                for each in self.correlations
            )
            told.append(
                f"Rank correlation between the loss at a rung and the final one, over the trials "
                f"that are done or audited: {shown}."
            )
        if self.stopped:
            nearest = self.stopped[0]
            told.append(
                f"The best stopped trial, {nearest.row.trial.name}, was {_against(nearest.behind)} "
                f"the winner when it was stopped at {nearest.rung:,} tokens."
            )
            told.append(self._verdict())
        return told

    def _verdict(self) -> str:
        if not self.audits:
            return (
                "No stopped trial was trained to its end; `lmray sweep audit` does that to some, "
                "and says whether one of them would have won."
            )
        best = self.audits[0]
        ahead = sum(audit.behind < 0 for audit in self.audits)
        found = f"{best.row.trial.name} ends {_against(best.behind)} the winner"
        if best.status == "diverged":
            found = "all of them diverge"
        verdict = f"{ahead} would have won, so ASHA lied" if ahead else "none would have won"
        text = f"Of {len(self.audits)} stopped trials trained to their end {verdict}: {found}"
        if ahead and not math.isnan(self.seed_spread):
            within = "within" if -best.behind <= self.seed_spread else "beyond"
            text += f", {within} the winner's spread of {self.seed_spread:.4f} over seeds"
        return text + "."


def honesty(sweep: Sweep, events: Sequence[Event]) -> Honesty:
    """Reads it from the ledger's events; a sweep without a winner has only its tokens."""
    at_rung = _losses(events)
    final = {row.trial.id: row.loss for row in sweep.trials if row.status == "done"}
    for row, event in _audited(sweep, events):
        if event.facts["status"] == "done":
            final[row.trial.id] = event.facts["loss"]
    correlations = []
    for rung in sorted({rung for losses in at_rung.values() for rung in losses}):
        both = [(at_rung[t][rung], end) for t, end in final.items() if rung in at_rung.get(t, {})]
        rho = math.nan  # two trials are in the same order or in the other one
        if len(both) > 2:
            rho = spearman([early for early, _ in both], [late for _, late in both])
        correlations.append(Correlation(rung, rho, len(both)))
    return Honesty(
        correlations,
        _stopped(sweep, at_rung),
        _audits(sweep, events),
        _seed_spread(sweep),
        sweep.trained_tokens,
        sweep.budget_tokens,
    )


def suspects(sweep: Sweep, events: Sequence[Event], count: int, *, seed: int = 0) -> list[Row]:
    """The stopped trials to audit: half of them, rounded up, the least behind, the rest by lot."""
    stopped = [each.row for each in _stopped(sweep, _losses(events))]
    nearest = stopped[: (count + 1) // 2]
    others = stopped[len(nearest) :]
    drawn = random.Random(seed).sample(others, min(count - len(nearest), len(others)))
    return nearest + drawn


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation: Pearson's of the ranks, equal values sharing their mean rank.

    NaN if all values of a side are equal.
    """
    ranks, others = _ranks(one), _ranks(other)
    if len(set(ranks)) < 2 or len(set(others)) < 2:
        return math.nan
    return statistics.correlation(ranks, others)


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    first = {value: ordered.index(value) for value in set(values)}
    return [first[value] + (ordered.count(value) + 1) / 2 for value in values]


def _losses(events: Sequence[Event]) -> dict[str, dict[int, float]]:
    """The finite losses at rungs, by trial and tokens."""
    found: dict[str, dict[int, float]] = {}
    for event in events:
        loss = event.facts.get("loss")
        if event.kind in ("rung", "paused", "stopped") and loss is not None:
            found.setdefault(event.trial, {})[event.facts["rung"]] = loss
    return found


def _stopped(sweep: Sweep, at_rung: dict[str, dict[int, float]]) -> list[Stopped]:
    winners = _winners(sweep)
    found = []
    for row in sweep.trials if winners else []:
        there = at_rung.get(winners[row.trial.changes["seed"]].trial.id, {})
        rung = max(at_rung.get(row.trial.id, {}), default=0)
        if row.status == "stopped" and rung in there:
            found.append(Stopped(row, rung, at_rung[row.trial.id][rung] - there[rung]))
    return sorted(found, key=lambda each: each.behind)


def _audits(sweep: Sweep, events: Sequence[Event]) -> list[Audit]:
    winners = _winners(sweep)
    found = []
    for row, event in _audited(sweep, events) if winners else []:
        loss = event.facts["loss"] if event.facts["status"] == "done" else math.inf
        behind = loss - winners[row.trial.changes["seed"]].loss
        found.append(Audit(row, event.facts["status"], behind))
    return sorted(found, key=lambda each: each.behind)


def _audited(sweep: Sweep, events: Sequence[Event]) -> list[tuple[Row, Event]]:
    rows = {row.trial.id: row for row in sweep.trials}
    ends = [event for event in events if event.kind == "audited" and event.trial in rows]
    return [(rows[event.trial], event) for event in ends]


def _winners(sweep: Sweep) -> dict[int, Row]:
    """By seed, what its other trials are set against: the trial of the best combination, for a seed
    does something to all; where that is not done, the winner. Empty while there is no winner.
    """
    winner = sweep.best
    if winner is None:
        return {}
    group = next(group for group in summaries(sweep) if winner in group.rows)
    own = {row.trial.changes["seed"]: row for row in group.rows if row.status == "done"}
    return {seed: own.get(seed, winner) for seed in sweep.space.seeds}


def _seed_spread(sweep: Sweep) -> float:
    winner = sweep.best
    if winner is None:
        return math.nan
    return next(group.loss.spread for group in summaries(sweep) if winner in group.rows)


def _against(behind: float) -> str:
    return f"{abs(behind):.4f} nats {'behind' if behind >= 0 else 'ahead of'}"
