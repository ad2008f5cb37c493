"""Whose checkpoint it is: the experiment, data and numerics that it was written under."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmray.errors import PreflightError
from lmray.storage import canonical_json


def require_same(path: Path, saved: Any, wanted: Mapping[str, Any]) -> None:
    """Raises PreflightError naming each key in which the checkpoint at `path` is another run's."""
    there = dict(_leaves(saved, ""))
    here = dict(_leaves(json.loads(canonical_json(dict(wanted))), ""))
    differing = [
        f"{key} is {there.get(key, 'absent')!r} there and {here.get(key, 'absent')!r} here"
        for key in sorted(there.keys() | here.keys())
        if there.get(key, ...) != here.get(key, ...)
    ]
    if differing:
        raise PreflightError(
            f"{path} belongs to another run: {', '.join(differing)}; "
            f"use that run's config, or another run directory"
        )


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, f"{prefix}.{key}" if prefix else key)
