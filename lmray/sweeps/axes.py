"""The axes of a space: which values a key may take, and when it is there at all.

An axis is a list of choices; a range to draw from (Uniform, LogUniform, Integer); Variants, which
are named changes of several keys; or a list of When, each with the axis that its condition brings.
A combination picks a value for each axis that is there.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmray.config import KEYS, Run, flatten, override
from lmray.errors import UsageError
from lmray.refusal import unknown_key
from lmray.storage import canonical_json

Combination = dict[str, Any]
"""A value for each axis that is there, by the axis's name."""


@dataclass(frozen=True)
class Uniform:
    """Any number from low to high, all alike."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            name = type(self).__name__
            raise UsageError(f"{name}({self.low}, {self.high}) is empty; put the lower bound first")

    def at(self, share: float) -> float:
        """The value below which `share` of the axis lies, to four digits for the reader's sake."""
        return self.rounded(self.low + share * (self.high - self.low))

    def rounded(self, value: float) -> float:
        """A value to four digits, within the bounds."""
        return min(max(float(f"{value:.4g}"), self.low), self.high)


@dataclass(frozen=True)
class LogUniform(Uniform):
    """Any number from low to high, all factors alike."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise UsageError(
                f"LogUniform({self.low}, {self.high}) has no logarithm at its lower end; give it a "
                f"low above 0 or take Uniform"
            )

    def at(self, share: float) -> float:
        """As Uniform's, along the logarithm."""
        return self.rounded(self.low * (self.high / self.low) ** share)


@dataclass(frozen=True)
class Integer:
    """Any whole number from low to high, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UsageError(f"Integer({self.low}, {self.high}) is empty; put the lower one first")

    def at(self, share: float) -> int:
        """The value below which `share` of the axis lies."""
        return min(self.low + math.floor(share * (self.high - self.low + 1)), self.high)


class Variants(dict[str, dict[str, Any]]):
    """Named changes of the base, by dotted key; an empty one is the base, under a name of its own.

    A variant changes at most `switches` keys, each to another value than the base's, so that what
    sets it apart is what it declares.
    """

    def __init__(self, variants: Mapping[str, Mapping[str, Any]], *, switches: int = 1) -> None:
        super().__init__({name: dict(changes) for name, changes in variants.items()})
        self.switches = switches

    def check(self, base: Run) -> None:
        """Raises UsageError for a variant that changes too much, or nothing where it says so."""
        values = flatten(base)
        for name, changes in self.items():
            if len(changes) > self.switches:
                raise UsageError(
                    f"variant {name!r} changes {', '.join(changes)}: {len(changes)} switches and "
                    f"not {self.switches}; split it, or say Variants(..., switches={len(changes)})"
                )
            for key in changes:
                if key not in KEYS:
                    raise UsageError(unknown_key(key, KEYS))
            changed = flatten(override(base, changes))
            same = [key for key in changes if changed[key] == values[key]]
            if same:
                raise UsageError(
                    f"variant {name!r} sets {same[0]}={changes[same[0]]!r}, which the base has "
                    f"already; drop it or change the base"
                )


@dataclass(frozen=True)
class When:
    """An axis that is there where earlier axes have certain values."""

    condition: Mapping[str, Any]
    """Names of earlier axes, each with a value or a list of values of which one must be met."""
    axis: "Sequence[Any] | Uniform | Integer | Variants"

    def holds(self, so_far: Mapping[str, Any]) -> bool:
        """Whether the values chosen so far meet the condition."""
        return all(
            so_far.get(key) in (wanted if isinstance(wanted, list | tuple) else [wanted])
            for key, wanted in self.condition.items()
        )


Leaf = Sequence[Any] | Uniform | Integer | Variants
"""An axis whose values can be taken without asking others."""

Axis = Leaf | Sequence[When]
Axes = Mapping[str, Axis]


def branches(axis: Axis) -> list[tuple[Mapping[str, Any], Leaf]]:
    """The leaves of an axis, each with its condition; an empty condition always holds."""
    if isinstance(axis, Sequence) and axis and all(isinstance(each, When) for each in axis):
        return [(each.condition, each.axis) for each in axis if isinstance(each, When)]
    return [({}, axis)]  # pyrefly: ignore


def choices(leaf: Leaf) -> list[Any]:
    """The values of a leaf that can be listed.

    Raises UsageError for a range.
    """
    if isinstance(leaf, Uniform | Integer):
        raise UsageError(
            f"{leaf} cannot be listed for a grid; name its values, or search by Sobol or Tpe"
        )
    return list(leaf)


def combine(axes: Axes, choose: Callable[[str, Leaf], Any]) -> Combination:
    """The combination that `choose` makes, asked for each leaf that is there by a name of its own.

    The name is the axis's, and for the i-th of several branches it ends in #i.
    """
    combination: Combination = {}
    for key, axis in axes.items():
        for number, (condition, leaf) in enumerate(branches(axis)):
            if When(condition, []).holds(combination):
                combination[key] = choose(f"{key}#{number}" if number else key, leaf)
                break
    return combination


def leaves(axes: Axes) -> Iterator[tuple[str, Leaf]]:
    """Every leaf under the name that `combine` asks for it by."""
    for key, axis in axes.items():
        for number, (_, leaf) in enumerate(branches(axis)):
            yield f"{key}#{number}" if number else key, leaf


def at(leaf: Leaf, share: float) -> Any:
    """The value of a leaf below which `share`, from 0 to 1, of it lies."""
    if isinstance(leaf, Uniform | Integer):
        return leaf.at(share)
    listed = list(leaf)
    return listed[min(int(share * len(listed)), len(listed) - 1)]


def grid(axes: Axes) -> list[Combination]:
    """Every combination of axes whose values can be listed."""
    combinations: list[Combination] = [{}]
    for key, axis in axes.items():
        grown = []
        for combination in combinations:
            there = (x for cond, x in branches(axis) if When(cond, []).holds(combination))
            leaf = next(there, None)
            values = [] if leaf is None else choices(leaf)
            grown += [{**combination, key: value} for value in values] or [combination]
        combinations = grown
    return combinations


def assigned(axes: Axes, combination: Mapping[str, Any]) -> dict[str, Any]:
    """What a combination changes, by dotted key: its variants are spelt out.

    Raises UsageError if a variant and an axis change the same key.
    """
    changes: dict[str, Any] = {}
    for name, value in combination.items():
        axis = axes.get(name)
        own = axis[value] if isinstance(axis, Variants) else {name: value}
        if twice := set(own) & set(changes):
            raise UsageError(
                f"{name}={value} and another axis both change {', '.join(twice)}; give one of them "
                f"a When that leaves the other out"
            )
        changes |= own
    return changes


def check(space: str, axes: Axes, base: Run) -> None:
    """Raises UsageError for axes that are empty, unknown, repeat a value or wait for later ones."""
    if not axes:
        raise UsageError(f"space {space} tries no values; give SPACE a key with values")
    if "seed" in axes:
        raise UsageError(f"space {space} varies seed in SPACE; list the seeds in SEEDS")
    earlier: dict[str, Axis] = {}
    for key, axis in axes.items():
        if isinstance(axis, Variants):
            axis.check(base)
        elif key not in KEYS:
            raise UsageError(unknown_key(key, KEYS))
        for condition, leaf in branches(axis):
            _check_leaf(space, key, leaf)
            for name, wanted in condition.items():
                if name not in earlier:
                    raise UsageError(
                        f"space {space}: {key} waits for {name}, which is no earlier axis; name it "
                        f"before {key} in SPACE"
                    )
                _check_condition(space, key, name, wanted, earlier[name])
        earlier[key] = axis


def _check_condition(space: str, key: str, name: str, wanted: Any, axis: Axis) -> None:
    known = [leaf for _, leaf in branches(axis)]
    if any(isinstance(leaf, Uniform | Integer) for leaf in known):
        return
    values = [value for leaf in known for value in choices(leaf)]
    for value in wanted if isinstance(wanted, list | tuple) else [wanted]:
        if value not in values:
            raise UsageError(
                f"space {space}: {key} waits for {name}={value!r}, which is none of "
                f"{', '.join(map(repr, values))}; correct the When"
            )


def _check_leaf(space: str, key: str, leaf: Leaf) -> None:
    if isinstance(leaf, Uniform | Integer):
        return
    if isinstance(leaf, str) or not isinstance(leaf, Sequence | Variants):
        raise UsageError(f"space {space}: {key}={leaf!r} is no list of values; write it as [...]")
    if not leaf:
        raise UsageError(f"space {space} tries no values of {key}; give it some")
    if any(isinstance(value, When) for value in leaf):
        raise UsageError(f"space {space}: {key} mixes When and values; give each a When")
    listed = list(leaf)
    repeated = [value for value in listed if listed.count(value) > 1]
    if repeated:
        raise UsageError(f"space {space} tries {key}={repeated[0]} twice; list it once")


def shown(value: Any) -> str:
    """A value as a reader has use for it: a number to four digits, none more than it has."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def spoken(combination: Mapping[str, Any]) -> str:
    """A combination as a reader says it: no norm lr=0.001 batch_size=32."""
    return " ".join(
        f"{key.rpartition('.')[2]}={shown(value)}" if key in KEYS else shown(value)
        for key, value in combination.items()
    )


def identity(combination: Mapping[str, Any]) -> str:
    """A text that two combinations share if and only if they are the same."""
    return canonical_json(dict(combination))
