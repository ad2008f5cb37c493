"""sweeps/<name>/: sweep.json says what is asked of which data, ledger.jsonl what has happened."""

from pathlib import Path
from typing import Any

from lmray.config import Run
from lmray.errors import PreflightError
from lmray.experiments.asha import Asha
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
    asha = Asha(**facts["space"]["asha"]).question()
    base = Run.model_validate(facts["space"]["base"]).experiment()
    return {"data": facts["data"], "base": base, "asha": asha, **asked}


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
