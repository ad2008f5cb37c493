"""Asynchronous successive halving in tokens: the rule, and the Ray Tune scheduler that applies it.

The rule is plain Python over recorded losses, so a resumed sweep rebuilds it from the ledger; Ray
Tune forgets its scheduler when it restores (ray 2.60), and its own ASHA ignores a NaN or a missing
metric.
"""

import json
import math
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from lmray.experiments.ledger import Event, Ledger


class Rungs:
    """The losses recorded at each rung, and who may go on.

    A trial goes on from a rung if its loss is among the best floor(n / eta) of the n recorded
    there, its own included; of fewer than eta there is no telling, and it goes on. Equal losses
    rank by the order in which they came. A diverged trial ranks last.
    """

    def __init__(self, levels: tuple[int, ...], reduction_factor: int) -> None:
        self.levels = levels
        self.reduction_factor = reduction_factor
        self._losses: dict[int, dict[str, float]] = {level: {} for level in levels}

    def record(self, trial: str, level: int, loss: float) -> None:
        """Notes a loss at a rung, as it comes or as the ledger has it."""
        self._losses[level][trial] = loss

    @property
    def horizon(self) -> int:
        """Tokens of the highest rung; 0 if there is none."""
        return max(self.levels, default=0)

    def passed(self, trial: str, tokens: int) -> list[int]:
        """The rungs at or below `tokens` at which `trial` has no loss yet, ascending."""
        return [r for r in self.levels if r <= tokens and trial not in self._losses[r]]

    def goes_on(self, trial: str, level: int) -> bool:
        """The decision about a trial whose loss at `level` has been recorded."""
        losses = self._losses[level]
        if not math.isfinite(losses[trial]):
            return False
        if len(losses) < self.reduction_factor:
            return True
        ranked = sorted(losses, key=losses.__getitem__)
        return ranked.index(trial) < len(losses) // self.reduction_factor


def rebuild(rungs: Rungs, events: list[Event]) -> None:
    """Gives `rungs` the losses that a ledger has; a loss that is None was not finite."""
    for event in events:
        if event.facts.get("rung") in rungs.levels:
            loss = event.facts["loss"]
            rungs.record(event.trial, event.facts["rung"], math.inf if loss is None else loss)


class AshaScheduler(FIFOScheduler):
    """Stops trials by the rule and writes the ledger; it runs in the process that drives the sweep.

    A trial reports {"message": JSON text}: kind "started" with name and changes, kind "validation"
    at each evaluation on the fixed prefix (tokens, loss; None if not finite), kind "ended" with
    status and facts. A message that lacks any of these is an error, not silence.
    """

    def __init__(self, rungs: Rungs, ledger: Ledger) -> None:
        super().__init__()
        self._rungs = rungs
        self._ledger = ledger

    def __getstate__(self) -> dict[str, Any]:
        # Ray Tune writes its scheduler into its scratch directory; the ledger is ours, and whole.
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Takes down what a trial reports, and decides at a rung."""
        identifier, message = trial.config["trial"]["id"], json.loads(result["message"])
        if message["kind"] == "started":
            facts = {"name": message["name"], "changes": message["changes"]}
            self._ledger.append("started", identifier, **facts)
        elif message["kind"] == "ended":
            self._end(identifier, message)
        else:
            return self._judge(identifier, message)
        return TrialScheduler.CONTINUE

    def _judge(self, identifier: str, record: dict[str, Any]) -> str:
        """A decision is one line of the ledger, so that no kill leaves half of it."""
        tokens, loss = record["tokens"], record["loss"]
        for level in self._rungs.passed(identifier, tokens):
            self._rungs.record(identifier, level, math.inf if loss is None else loss)
            if not self._rungs.goes_on(identifier, level):
                keys = ("step", "tokens", "loss", "bits_per_byte", "perplexity", "seconds")
                measured = {key: record[key] for key in keys}
                self._ledger.append("stopped", identifier, rung=level, **measured)
                return TrialScheduler.STOP
            self._ledger.append("rung", identifier, rung=level, tokens=tokens, loss=loss)
        return TrialScheduler.CONTINUE

    def _end(self, identifier: str, message: dict[str, Any]) -> None:
        facts, status = message["facts"], message["status"]
        if status == "diverged":
            # It ranks last at the rung it was on its way to.
            ahead = self._rungs.passed(identifier, self._rungs.horizon)[:1]
            for level in ahead:
                self._rungs.record(identifier, level, math.inf)
                facts["rung"] = level
        kind = status if status in ("done", "diverged") else "failed"
        self._ledger.append(kind, identifier, **facts)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Takes down a failure with the last line of what was raised; it may be retried."""
        text = Path(trial.error_file).read_text() if trial.error_file else ""
        lines = text.strip().splitlines() or ["its process was lost"]
        self._ledger.append("failed", trial.config["trial"]["id"], error=lines[-1])
