"""What a sweep asks: a base run, values to try, seeds, rungs at which trials are compared.

A space is a Python file: its docstring is the hypothesis, and it defines

    BASE   a Run
    SPACE  dotted keys and the values of each, {"optim.lr": [1e-4, 1e-3]}; every combination
           is a trial
    SEEDS  the seeds of each combination
    ASHA   an Asha, or TO_THE_END
"""

import itertools
import random
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lmray.config import KEYS, Run, override, run_id
from lmray.errors import LmrayError, UsageError
from lmray.experiments.asha import TO_THE_END, Asha

__all__ = ["TO_THE_END", "Asha", "Space", "Trial", "load_space", "shipped_spaces"]


@dataclass(frozen=True)
class Trial:
    """One run of a sweep."""

    id: str
    """The run id."""
    changes: dict[str, Any]
    """What sets it apart from the base, by dotted key."""
    run: Run

    @property
    def name(self) -> str:
        """The changes as a reader says them: lr=0.001 batch_size=32 seed=0."""
        return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.changes.items())


@dataclass(frozen=True)
class Space:
    """A question: which of these values gives the lowest validation loss at equal tokens?"""

    name: str
    hypothesis: str
    base: Run
    axes: Mapping[str, Sequence[Any]]
    seeds: tuple[int, ...]
    asha: Asha

    def __post_init__(self) -> None:
        if not self.axes or not all(len(values) for values in self.axes.values()):
            raise UsageError(f"space {self.name} tries no values; give SPACE a key with values")
        if "seed" in self.axes:
            raise UsageError(f"space {self.name} varies seed in SPACE; list the seeds in SEEDS")
        if not self.seeds:
            raise UsageError(f"space {self.name} has no seeds; set SEEDS = [0] or more of them")
        for key, values in self.axes.items():
            repeated = [value for value in values if list(values).count(value) > 1]
            if repeated:
                raise UsageError(f"space {self.name} tries {key}={repeated[0]} twice; list it once")
        runs = [run for _, run in self.runs()]
        self.asha.check(self.name, runs, self.base.budget.tokens)

    def with_overrides(self, changes: Mapping[str, Any]) -> "Space":
        """The same question about another base, refusing to change what the space varies."""
        for key in changes:
            if key in self.axes or key == "seed":
                raise UsageError(f"{key} is what space {self.name} varies; edit the space instead")
        return replace(self, base=override(self.base, changes)) if changes else self

    def runs(self) -> list[tuple[dict[str, Any], Run]]:
        """Every combination with every seed: its changes and its Run.

        The order is shuffled, always the same way: ASHA judges a trial by those before it, and in
        the order of a sorted axis the worst would come first and be judged by nobody.
        """
        combinations = itertools.product(*self.axes.values(), self.seeds)
        changes = [dict(zip([*self.axes, "seed"], values, strict=True)) for values in combinations]
        random.Random(0).shuffle(changes)
        return [(change, override(self.base, change)) for change in changes]

    def trials(self, data_digest: str) -> list[Trial]:
        """The trials on a token dataset, in the order in which they start."""
        return [Trial(run_id(run, data_digest), change, run) for change, run in self.runs()]

    def facts(self) -> dict[str, Any]:
        """The space as plain values, for sweep.json."""
        return {
            "name": self.name,
            "hypothesis": self.hypothesis,
            "base": self.base.model_dump(),
            "axes": {key: list(values) for key, values in self.axes.items()},
            "seeds": list(self.seeds),
            "asha": asdict(self.asha),
        }

    @staticmethod
    def from_facts(facts: Mapping[str, Any]) -> "Space":
        """The space that `facts` came from."""
        return Space(
            name=facts["name"],
            hypothesis=facts["hypothesis"],
            base=Run.model_validate(facts["base"]),
            axes={key: list(values) for key, values in facts["axes"].items()},
            seeds=tuple(facts["seeds"]),
            asha=Asha(**facts["asha"]),
        )


def load_space(source: str) -> Space:
    """The space a Python file defines; `source` is its path, or the name of one that lmray ships.

    Raises UsageError if there is none, it does not run, or lacks one of its names.
    """
    path = Path(source)
    if not path.suffix:
        path = shipped_spaces().get(source, path)
    if not path.is_file():
        raise UsageError(
            f"no space at {source}; name a Python file or one of {', '.join(shipped_spaces())}"
        )
    try:
        names = runpy.run_path(str(path))
    except LmrayError:
        raise
    except Exception as error:
        what = " ".join(str(error).split())
        raise UsageError(f"{path} does not run: {type(error).__name__}: {what}") from error
    missing = [name for name in ("BASE", "SPACE", "SEEDS", "ASHA") if name not in names]
    if missing:
        raise UsageError(f"{path} does not define {', '.join(missing)}; see tune_spaces/")
    if unknown := [key for key in names["SPACE"] if key not in KEYS]:
        override(names["BASE"], {unknown[0]: names["SPACE"][unknown[0]]})
    return Space(
        name=path.stem,
        hypothesis=(names["__doc__"] or "").strip(),
        base=names["BASE"],
        axes=names["SPACE"],
        seeds=tuple(names["SEEDS"]),
        asha=names["ASHA"],
    )


def shipped_spaces() -> dict[str, Path]:
    """The spaces that come with lmray, by name: from the wheel, or from a checkout."""
    package = Path(__file__).parents[1]
    folder = next(
        f for f in (package / "tune_spaces", package.parent / "tune_spaces") if f.is_dir()
    )
    return {path.stem: path for path in sorted(folder.glob("*.py"))}
