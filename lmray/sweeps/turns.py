"""The trials of a sweep one after the other, each when there is a place for it.

A search that learns is asked then, with the ledger as it is, and what it chooses is written down
before it is run; what a user adds in the meantime comes too.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from lmray.sweeps.ledger import read_events
from lmray.sweeps.space import Space, Trial
from lmray.sweeps.sweep_directory import add, additions


class Turns:
    """The trials of a space and of what is added to it; looked through again, there may be more."""

    def __init__(
        self, space: Space, data_digest: str, directory: Path, stop: Callable[[], bool]
    ) -> None:
        """There are none while `stop()`."""
        self._space = space
        self._digest = data_digest
        self._directory = directory
        self._stop = stop
        self._trials = space.trials(data_digest)

    def trials(self) -> list[Trial]:
        """Those that are known at this moment; later ones come at the end."""
        added = additions(self._directory)
        if added != self._space.added:
            self._space = replace(self._space, added=added)
            self._trials = self._space.trials(self._digest)
        return self._trials

    def __iter__(self) -> Iterator[Trial]:
        """The trials known, then the search's next ones until it has ended."""
        given = 0
        while not self._stop():
            if fresh := self.trials()[given:]:
                given += len(fresh)
                yield from fresh
                continue
            found = self._space.next(self._digest, read_events(self._directory / "ledger.jsonl"))
            if found is None:
                return
            # If a user was faster, the search is asked again.
            add(self._directory, found, by="search", after=len(self._space.added))
