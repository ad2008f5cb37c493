"""A trial's side of the rungs: it says what it measured there and waits to be told to go on."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lmray import remote
from lmray.sweeps.ledger import read_events
from lmray.training.loop import never

_PATIENCE_S = (0.02, 0.05, 0.1, 0.2, 0.5)
"""How long to wait before looking into the ledger again; the last one for ever."""


class Verdicts:
    """The `report` and the `interrupted` callable of a trial's training.

    The verdict is read from the ledger, which lies where every trial can reach it, as run
    directories do, at a shared path or a URL: a trial that does not go on leaves of its own
    accord, after its checkpoint.
    """

    def __init__(
        self,
        ledger: Path,
        trial: str,
        levels: Sequence[int],
        tell: Callable[[dict[str, Any]], None],
        told: Callable[[], bool] = never,
    ) -> None:
        """`tell` brings a record to whoever writes the ledger.

        Once the process was `told` that it will end, it waits for no verdict: its next life asks.
        """
        self._ledger = ledger
        self._trial = trial
        self._tell = tell
        self._told = told
        judged = self._found() if levels else {}
        self._open = [level for level in levels if level not in judged]
        self._leaves = False

    def __call__(self, record: dict[str, Any]) -> None:
        """Tells a validation on the prefix that falls on a rung, and waits for the verdict."""
        if record["kind"] != "validation" or record["scope"] != "prefix" or self._leaves:
            return
        level = record["tokens"]
        if level not in self._open:
            return
        self._open.remove(level)
        self._tell(record)
        attempt = 0
        while (verdict := self._found().get(level)) is None:
            if self._told():
                return
            time.sleep(_PATIENCE_S[min(attempt, len(_PATIENCE_S) - 1)])
            attempt += 1
        self._leaves = verdict != "rung"

    def interrupted(self) -> bool:
        """Whether the trial has to leave."""
        return self._leaves

    def _found(self) -> dict[int, str]:
        """The verdicts on this trial, by rung; what came later about a rung does not change it."""
        found: dict[int, str] = {}
        remote.refresh(self._ledger)
        for event in read_events(self._ledger):
            if event.trial != self._trial:
                continue
            if event.kind == "retried":
                found = {level: kind for level, kind in found.items() if kind != "diverged"}
            elif "rung" in event.facts:
                found.setdefault(event.facts["rung"], event.kind)
        return found
