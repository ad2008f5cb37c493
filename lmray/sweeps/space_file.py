"""A space as a Python file. Its docstring is the hypothesis, and it defines

    BASE       a Run
    SPACE      axes by dotted key, {"optim.lr": [1e-4, 1e-3]}; see lmray.sweeps.axes
    SEEDS      the seeds of each combination
    ASHA       an Asha, or TO_THE_END

Where values follow from the base, SPACE is a function that returns the axes, given the base as the
command line has changed it and the GB of a device. And, if it likes,

    SEARCH     Grid() (the default: every combination), Random(n), Sobol(n), Tpe(n), or along one
               axis Bracket(key) for its optimum and Bisect(key) for its largest stable value;
               Population(members, generations) changes values while it trains
    BASELINE   values of axes, {"variant": "baseline"}; the others are compared with these
    MEMORY_GB  of a device; combinations that take more are refused
    LOSERS     what trials that are stopped or diverge keep of their checkpoints: "best" (the
               default: the weights of the best one), "nothing", or "all"
    refuse     a function that says why a Run is not to be tried, or "" if it is
"""

import difflib
import math
import runpy
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import FunctionType, MappingProxyType
from typing import Any

from lmray.config import Run, override
from lmray.errors import LmrayError, UsageError
from lmray.sweeps.constraints import nothing_refused
from lmray.sweeps.search import Grid
from lmray.sweeps.space import Asha, Space

_NEEDED = {"BASE": Run, "SPACE": dict | FunctionType, "SEEDS": list | tuple | range, "ASHA": Asha}
_OPTIONAL = ("SEARCH", "BASELINE", "MEMORY_GB", "LOSERS")
_NO_CHANGES: Mapping[str, Any] = MappingProxyType({})


def load_space(
    source: str, changes: Mapping[str, Any] = _NO_CHANGES, said: Mapping[str, Any] = _NO_CHANGES
) -> Space:
    """The space a Python file defines; `source` is its path, or the name of one that lmray ships.

    `changes` are those of `Space.with_overrides`. `said` are names, as MEMORY_GB, that are not as
    the file defines them.

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
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise UsageError(f"{path} does not define {', '.join(missing)}; see tune_spaces/")
    known = [*_NEEDED, *_OPTIONAL]
    for name in [name for name in names if name.isupper() and name not in known]:
        if close := difflib.get_close_matches(name, known, n=1, cutoff=0.8):
            raise UsageError(
                f"{path} defines {name}, which means nothing; write {close[0]}, or rename it"
            )
    for name, kind in _NEEDED.items():
        if not isinstance(names[name], kind):
            raise UsageError(
                f"{path}: {name}={names[name]!r:.80} is no {getattr(kind, '__name__', 'list')}; "
                f"see tune_spaces/"
            )
    try:
        return _space(path.stem, {**_changed(names, changes), **said}).with_overrides(changes)
    except LmrayError:
        raise
    except Exception as error:  # a user's refuse(), or a value of a kind that none is
        what = " ".join(str(error).split())
        raise UsageError(f"{path} is no space: {type(error).__name__}: {what}") from error


def _changed(names: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """With the base and the rungs as they will be: what SPACE returns may fit no others."""
    base = {key: value for key, value in changes.items() if not key.startswith("asha.")}
    fields = {name: f"asha.{name}" for name in asdict(names["ASHA"])}
    rungs = {name: changes[key] for name, key in fields.items() if key in changes}
    return names | {"BASE": override(names["BASE"], base), "ASHA": replace(names["ASHA"], **rungs)}


def _space(name: str, names: dict[str, Any]) -> Space:
    axes, memory_gb = names["SPACE"], names.get("MEMORY_GB", math.inf)
    if callable(axes):
        axes = axes(names["BASE"], memory_gb)
    return Space(
        name=name,
        hypothesis=(names["__doc__"] or "").strip(),
        base=names["BASE"],
        axes=axes,
        seeds=tuple(names["SEEDS"]),
        asha=names["ASHA"],
        search=names.get("SEARCH", Grid()),
        baseline=names.get("BASELINE", {}),
        memory_gb=memory_gb,
        losers=names.get("LOSERS", "best"),
        refuse=names.get("refuse", nothing_refused),
    )


def shipped_spaces() -> dict[str, Path]:
    """The spaces that come with lmray, by name: from the wheel, or from a checkout."""
    package = Path(__file__).parents[1]
    folder = next(
        f for f in (package / "tune_spaces", package.parent / "tune_spaces") if f.is_dir()
    )
    return {path.stem: path for path in sorted(folder.glob("*.py"))}
