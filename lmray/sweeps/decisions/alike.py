"""Failures with the same traceback in trial after trial, counted over all lives of a sweep."""

from lmray.sweeps.ledger import Event

ALIKE = 3
"""Failures of at least two trials with the same traceback after which a sweep gives up."""


class Alike:
    """Who has failed with which trace, folded from a ledger's events.

    Failures of a trial before somebody asked to run it again do not count, nor do those that a
    sweep gave up for: it was resumed after them. Ledgers without traces have none that count.
    """

    def __init__(self) -> None:
        self._trials: dict[str, list[str]] = {}

    def apply(self, event: Event) -> list[str]:
        """Takes an event into account.

        Returns whose failures were alike, once for each, if the sweep must not go on for them.
        """
        if event.kind == "retried":
            for trials in self._trials.values():
                trials[:] = [each for each in trials if each != event.trial]
        if event.kind != "failed" or "trace" not in event.facts:
            return []
        trials = self._trials.setdefault(event.facts["trace"], [])
        trials.append(event.trial)
        if len(trials) < ALIKE or len(set(trials)) == 1:
            return []
        return self._trials.pop(event.facts["trace"])
