"""sweeps/<name>/: sweep.json says what is asked of which data, ledger.jsonl what has happened."""

from pathlib import Path
from typing import Any

from lmray.errors import PreflightError
from lmray.experiments.ledger import CLOSED, read_events, standing
from lmray.experiments.space import Space
from lmray.storage import canonical_json, read_json, write_json

FORMAT_VERSION = 1


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
    if canonical_json(_comparable(found)) != canonical_json(_comparable(facts)):
        asked, there = facts["space"], found["space"]
        differing = [key for key in asked if asked[key] != there.get(key)] or ["the token dataset"]
        raise PreflightError(
            f"{directory} holds another sweep ({', '.join(differing)} differ); choose another "
            f"--name or delete it"
        )


def _facts(space: Space, data_digest: str) -> dict[str, Any]:
    return {"format_version": FORMAT_VERSION, "space": space.facts(), "data": data_digest}


def _comparable(facts: dict[str, Any]) -> dict[str, Any]:
    """What makes a sweep this sweep: not how it is carried out, nor where its data lies."""
    base = facts["space"]["base"]
    kept = {key: value for key, value in base.items() if key not in ("execution", "tracking")}
    data = {key: value for key, value in base["data"].items() if key != "tokens"}
    return facts | {"space": facts["space"] | {"base": kept | {"data": data}}}


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
    return Space.from_facts(found["space"]), found["data"]


def is_closed(directory: Path, space: Space, data_digest: str) -> bool:
    """Whether every trial is done, stopped or diverged, so that there is nothing left to run."""
    stands = standing(read_events(directory / "ledger.jsonl"))
    return all(stands.get(trial.id) in CLOSED for trial in space.trials(data_digest))
