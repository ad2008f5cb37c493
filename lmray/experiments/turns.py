"""The trials of a sweep one after the other, each when there is a place for it.

A search that learns is asked then, with the ledger as it is, and what it chooses is written down
before it is run; what a user adds in the meantime comes too.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lmray.experiments.ledger import read_events
from lmray.experiments.space import Space, Trial
from lmray.experiments.sweep_directory import StopFile, add, additions


def in_turn(space: Space, data_digest: str, directory: Path) -> Iterator[Trial]:
    """The trials that `space` has, then those that are added to it while these run.

    Each comes once. There are no more once the directory has a stop file.
    """
    stop = StopFile.of(directory)
    given: set[str] = set()
    while not stop():
        space = replace(space, added=additions(directory))
        fresh = [t for t in space.trials(data_digest) if t.id not in given]
        if fresh:
            given.add(fresh[0].id)
            yield fresh[0]
            continue
        found = space.next(data_digest, read_events(directory / "ledger.jsonl"))
        if found is None:
            return
        add(directory, found, by="search")
