"""Training stopped trials to their end, to see whether one of them should not have been stopped."""

from collections import Counter, deque
from typing import Any

from lmray.sweeps.decisions.halving import MAX_FAILURES, MAX_LOSSES
from lmray.sweeps.ledger import Ledger


class Auditor:
    """Takes the place of the referee where nothing is decided: it only writes down the ends."""

    def __init__(self, ledger: Ledger, chosen: list[str]) -> None:
        """Those of the `chosen` trials that the ledger has not audited yet are its jobs."""
        audited = {event.trial for event in ledger.events() if event.kind == "audited"}
        self._ledger = ledger
        self._open = {trial: None for trial in chosen if trial not in audited}
        self._failures: Counter[str] = Counter()
        self.jobs: deque[str] = deque(self._open)
        self.broken = ""

    @property
    def finished(self) -> bool:
        """Whether all have ended, or failed too often."""
        return not self._open

    def judge(self, trial: str, record: dict[str, Any]) -> None:
        """An audited trial has no rungs.

        Raises RuntimeError.
        """
        raise RuntimeError(f"trial {trial} asks for a verdict at {record['tokens']} in an audit")

    def ended(self, trial: str, status: str, facts: dict[str, Any]) -> None:
        """Writes down what came of it; a trial that is not at its end has failed."""
        if status not in ("done", "diverged"):
            error = f"it ended with status {status} before its budget did"
            self.failed(trial, error, trace=error)
            return
        if status == "done" and facts["loss"] is None:
            status = "diverged"
        del self._open[trial]
        self._ledger.append("audited", trial, status=status, **facts)

    def failed(
        self, trial: str, error: str, *, trace: str, lost: bool = False, saved: int = 0
    ) -> None:
        """Starts it again, or says that it failed; not one that died after it told its end."""
        if trial not in self._open:
            return
        self._failures[trial] += 1
        if self._failures[trial] <= (MAX_LOSSES if lost else MAX_FAILURES):
            self.jobs.append(trial)
        else:
            self.broken = (
                f"the audit of trial {trial} failed: {error}; correct that and audit again"
            )
