"""sweeps/<name>/: sweep.json says what is asked of which data, ledger.jsonl what has happened.

added.jsonl has the combinations that came later, one a line: those a search chose by outcomes, and
those a user added. A file called stop asks whoever drives the sweep to end it for now.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lmray import remote
from lmray.config import Run
from lmray.errors import LmrayError, PreflightError, UsageError
from lmray.refusal import unknown_key
from lmray.storage import (
    append_line,
    canonical_json,
    one_at_a_time,
    read_json,
    read_lines,
    write_json,
)
from lmray.sweeps.axes import Combination, Variants
from lmray.sweeps.decisions.asha import Asha
from lmray.sweeps.ledger import CLOSED, read_events, standing
from lmray.sweeps.space import Space

FORMAT_VERSION = 1
_ASK_S = 5.0


def claim(directory: Path, space: Space, data_digest: str) -> None:
    """Writes sweep.json, or checks that the one there asks the same of the same data.

    Raises PreflightError naming what differs.
    """
    path = directory / "sweep.json"
    facts = _facts(space, data_digest)
    if not path.exists():
        write_json(path, facts)
        return
    found = read_json(path)
    asked, there = _comparable(facts), _comparable(found)
    differing = [key for key in asked if canonical_json(asked[key]) != canonical_json(there[key])]
    if differing:
        raise PreflightError(
            f"{directory} holds another sweep: not the same {', '.join(differing)}; choose another "
            f"--name or delete it"
        )


def _facts(space: Space, data_digest: str) -> dict[str, Any]:
    return {"format_version": FORMAT_VERSION, "space": space.facts(), "data": data_digest}


def _comparable(facts: dict[str, Any]) -> dict[str, Any]:
    """What makes a sweep this one: not its words, nor how and from where it is carried out."""
    asked = {key: facts["space"][key] for key in ("axes", "seeds")}
    asked["asha"] = Asha(**facts["space"]["asha"]).question()
    # Sweeps of before there were searches and constraints are grids without any.
    asked["search"] = facts["space"].get("search", {"kind": "Grid"})
    asked["refused"] = facts["space"].get("refused", [])
    base = Run.model_validate(facts["space"]["base"]).experiment()
    return {"data": facts["data"], "base": base, **asked}


def read_space(directory: Path) -> tuple[Space, str]:
    """The space of a sweep and the digest of its data.

    Raises PreflightError if there is no sweep.
    """
    path = directory / "sweep.json"
    if not path.exists():
        raise PreflightError(
            f"no sweep at {directory}: sweep.json is missing; start one with `lmray sweep run`"
        )
    found = read_json(path)
    return Space.from_facts(found["space"], additions(directory)), found["data"]


def fetch(directory: Path, runs: Path) -> None:
    """Brings what a sweep at a URL and its runs have recorded to this node; checkpoints stay."""
    if not remote.url(directory):
        return
    remote.refresh(directory)
    if (directory / "sweep.json").exists():
        space, data_digest = read_space(directory)
        for trial in space.asked(data_digest):
            for name in ("run.json", "metrics.jsonl"):
                remote.refresh(runs / trial.id / name)


def additions(directory: Path) -> tuple[Combination, ...]:
    """The combinations that came after the sweep's start, in their order."""
    return tuple(line["combination"] for line in read_lines(directory / "added.jsonl"))


def add(
    directory: Path, combination: Combination, *, by: Literal["search", "user"], after: int
) -> bool:
    """Adds a combination to what a sweep tries, with every seed, for good, behind `after` others.

    False if there are others by now, of another process: then nothing is added, for what was chosen
    without knowing them may be among them.
    """
    path = directory / "added.jsonl"
    with one_at_a_time(path):
        if len(additions(directory)) != after:
            return False
        append_line(path, {"combination": combination, "by": by})
        remote.publish(path)
        return True


def addition(space: Space, values: Mapping[str, Any]) -> Combination:
    """The combination of these values of axes; where an axis is not named, the base's holds.

    Raises UsageError for what is no axis, no variant, no valid run, has no validation at a rung, is
    tried already, or does not fit the space's memory.
    """
    for name, value in values.items():
        axis = space.axes.get(name)
        if axis is None:
            raise UsageError(unknown_key(name, list(space.axes)))
        if isinstance(axis, Variants) and value not in axis:
            raise UsageError(f"no variant {name}={value}; the variants are {', '.join(axis)}")
    combination = {name: values[name] for name in space.axes if name in values}
    run = space.run_of(combination)
    if any(run == space.run_of(tried) for tried in space.combinations()):
        raise UsageError(f"{dict(values)} is tried already; choose other values")
    if reason := space.reason(combination):
        raise UsageError(f"{dict(values)} is not to be tried: {reason}; choose other values")
    replace(space, added=(*space.added, combination))
    return combination


class StopFile:
    """Asks whoever drives a sweep, and its trials, to write checkpoints and end for now.

    Asked of often, as after every step of a training, it looks at the disk once a second and at a
    URL once in five.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._next_look = 0.0
        self._there = False

    @classmethod
    def of(cls, directory: Path) -> "StopFile":
        """That of a sweep's directory."""
        return cls(directory / "stop")

    def __call__(self) -> bool:
        """Whether an end is asked for."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + (_ASK_S if remote.url(self.path) else 1)
            # A URL that does not answer this time has not taken back what it said.
            with suppress(LmrayError):
                self._there = self.path.exists() or remote.exists(self.path)
        return self._there

    def ask(self) -> None:
        """Leaves the file."""
        self._there = True
        self.path.touch()
        remote.publish(self.path)


def begin(directory: Path) -> None:
    """Removes what asked an earlier life of the sweep to stop."""
    path = StopFile.of(directory).path
    path.unlink(missing_ok=True)
    remote.remove(path)


def is_closed(directory: Path, space: Space, data_digest: str) -> bool:
    """Whether every trial is done, stopped or diverged, and the search has nothing more to try."""
    events = read_events(directory / "ledger.jsonl")
    stands = standing(events)
    if any(stands.get(trial.id) not in CLOSED for trial in space.trials(data_digest)):
        return False
    return space.next(data_digest, events) is None
