"""Axes as JSON has them, in sweep.json."""

from dataclasses import fields
from typing import Any

from lmray.sweeps.axes import (
    Axis,
    Integer,
    Leaf,
    LogUniform,
    Uniform,
    Variants,
    When,
    branches,
)

_RANGES: dict[str, type[Uniform | Integer]] = {
    each.__name__: each for each in (Uniform, LogUniform, Integer)
}


def to_plain(axis: Axis) -> Any:
    """An axis as JSON has it; a list of choices is itself."""
    if isinstance(axis, Variants):
        return {"Variants": dict(axis), "switches": axis.switches}
    if isinstance(axis, Uniform | Integer):
        return {type(axis).__name__: [getattr(axis, field.name) for field in fields(axis)]}
    if any(condition for condition, _ in branches(axis)):
        return {"When": [[dict(cond), to_plain(leaf)] for cond, leaf in branches(axis)]}
    return list(axis)


def from_plain(value: Any) -> Axis:
    """The axis that `to_plain` wrote."""
    if "When" in value:
        return [When(cond, _leaf_from_plain(leaf)) for cond, leaf in value["When"]]
    return _leaf_from_plain(value)


def _leaf_from_plain(value: Any) -> Leaf:
    if isinstance(value, list):
        return value
    if "Variants" in value:
        return Variants(value["Variants"], switches=value["switches"])
    ((name, bounds),) = value.items()
    return _RANGES[name](*bounds)
