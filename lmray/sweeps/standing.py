"""How each trial of a sweep stands at this moment, from its ledger and its metrics."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmray.runs.run_directory import RunDirectory
from lmray.storage import last_line
from lmray.sweeps.ledger import Event, Status, read_events, statuses
from lmray.sweeps.space import Space, Trial
from lmray.sweeps.sweep_directory import read_space


@dataclass(frozen=True)
class Standing:
    """One trial, now; an absent number is None."""

    trial: Trial
    status: Status
    tokens: int
    loss: float | None
    """Validation loss in nats/token where there is one, of training while there is none."""
    rung: int
    """Highest rung at which it has been judged, in tokens; 0 before the first."""
    eta_s: float | None
    """Seconds to its end at the speed of its last record, evaluations aside."""


def standings(directory: Path, runs: Path) -> list[Standing]:
    """The trials of a sweep in the order of their start, perhaps while it runs.

    Raises PreflightError if there is no sweep.
    """
    space, data_digest = read_space(directory)
    return trials_standing(space, data_digest, directory, runs)


def trials_standing(
    space: Space,
    data_digest: str,
    directory: Path,
    runs: Path,
    audited: Collection[str] = (),
) -> list[Standing]:
    """As `standings`, of a space that is known already.

    The trials `audited` are shown as an audit has them: running, and then as it left them.
    """
    events = read_events(directory / "ledger.jsonl")
    stands = statuses(events)
    for trial in audited:
        stands[trial] = "running"
    own: dict[str, list[Event]] = {}
    for event in events:
        if event.kind == "audited":
            if event.trial not in audited:
                continue
            stands[event.trial] = "done" if event.facts["status"] == "done" else "diverged"
        own.setdefault(event.trial, []).append(event)
    return [
        _standing(trial, stands.get(trial.id, "waiting"), own.get(trial.id, []), runs)
        for trial in space.trials(data_digest)
    ]


def _standing(trial: Trial, status: Status, events: list[Event], runs: Path) -> Standing:
    measured = [event.facts for event in events if event.facts.get("tokens") is not None]
    # One that diverged has the rung that it did not reach.
    judged = [facts["rung"] for facts in measured if "rung" in facts]
    rung = max((level for level in judged if level <= measured[-1]["tokens"]), default=0)
    tokens, loss, eta = 0, None, None
    if measured:
        tokens, loss = measured[-1]["tokens"], measured[-1].get("loss")
    if status == "running":
        record: dict[str, Any] = last_line(runs / trial.id / "metrics.jsonl")
        if record.get("tokens", 0) > tokens:
            tokens, loss = record["tokens"], record.get("loss")
        own = tokens - RunDirectory(runs / trial.id).began_at_tokens
        if record.get("seconds") and own > 0:
            eta = record["seconds"] / own * (trial.run.training_tokens - tokens)
    return Standing(trial, status, tokens, loss, rung, eta)
