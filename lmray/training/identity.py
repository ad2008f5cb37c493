"""Whose checkpoint it is: the experiment, data and numerics that it was written under."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmray.errors import PreflightError
from lmray.storage import canonical_json


def require_same(path: Path, saved: Any, wanted: Mapping[str, Any]) -> None:
    """Raises PreflightError naming each key in which the checkpoint at `path` is another run's."""
    if differing := differences(saved, wanted):
        raise PreflightError(
            f"{path} belongs to another run: {', '.join(differing)}; "
            f"use that run's config, or another run directory"
        )


def differences(saved: Any, wanted: Mapping[str, Any]) -> list[str]:
    """Each key in which two identities differ, with its value there and here."""
    there, here = (dict(_leaves(json.loads(canonical_json(each)), "")) for each in (saved, wanted))
    return [
        f"{key} is {there.get(key, 'absent')!r} there and {here.get(key, 'absent')!r} here"
        for key in sorted(there.keys() | here.keys())
        if there.get(key, ...) != here.get(key, ...)
    ]


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, f"{prefix}.{key}" if prefix else key)
