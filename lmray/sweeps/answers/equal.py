"""What the trials of a sweep were compared at: equal tokens, steps, operations or seconds."""

from typing import Literal

from lmray.sweeps.answers.tables import Row
from lmray.training.budget import Meter

Limit = Literal["training tokens", "steps", "operations", "seconds"]


def limit(row: Row) -> Limit:
    """Which limit of its budget ended a trial that is done."""
    run = row.trial.run
    paid = Meter(run).steps
    if run.budget.seconds != "none" and row.measured["tokens"] < run.batches.tokens(paid):
        return "seconds"
    if paid == run.batches.steps:
        return "training tokens"
    return "steps" if paid == run.steps else "operations"


def held_equal(rows: list[Row]) -> str:
    """A sentence on what the trials that are done had in equal measure; empty if none is."""
    done = [row for row in rows if row.status == "done"]
    if not done:
        return ""
    budget = done[0].trial.run.budget
    ended: dict[Limit, set[int]] = {}
    for row in done:
        ended.setdefault(limit(row), set()).add(row.trial.run.sequences_per_step)
    if len(ended) > 1:
        told = (f"{_listed(sizes)} ended by {which}" for which, sizes in ended.items())
        return (
            f"Not compared at equal work: batches of {', of '.join(told)}; for a fair comparison "
            f"set the budget so that one limit ends all."
        )
    (which,) = ended
    tokens = _range([row.measured["tokens"] for row in done])
    if which == "training tokens":
        return f"Compared at equal training tokens, {tokens} each, in whole steps."
    amount = {
        "steps": f"{budget.steps:,}" if budget.steps != "none" else "",
        "operations": f"{budget.flops:.4g}" if budget.flops != "none" else "",
        "seconds": f"{budget.seconds:g}" if budget.seconds != "none" else "",
    }[which]
    if which == "seconds":
        took = sorted(row.measured["seconds"] for row in done)
        amount += f" each (they took {took[0]:.1f} to {took[-1]:.1f})"
    else:
        amount += " each"
    return f"Compared at equal {which}, {amount}, and so at unequal training tokens: {tokens}."


def _listed(sizes: set[int]) -> str:
    return ", ".join(map(str, sorted(sizes)))


def _range(tokens: list[int]) -> str:
    low, high = min(tokens), max(tokens)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
