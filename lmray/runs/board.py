"""The board: finished runs ranked by their final loss, those of one dataset among themselves.

Losses per token compare where the tokens are the same; between datasets only bits per byte do, and
only if they were cut from the same text.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmray.config import Run, flatten
from lmray.presets import PRESETS
from lmray.progress import Progress, silent
from lmray.runs.expected import BANDS, Band
from lmray.runs.run_directory import RunDirectory, list_runs

_SHOWN = ("evaluation.prompts", "evaluation.sample_tokens", "data.tokens")
"""Keys that change nothing of a curve, or say where the data is."""


@dataclass(frozen=True)
class Entry:
    """A finished run on the board."""

    run: str
    preset: str
    """The one that the run differs least from."""
    changes: dict[str, Any]
    """What the run has that the preset has not, by dotted key."""
    tokens: int
    """Trained, those of a run that it began from among them."""
    seconds: float
    """Of its own training."""
    hardware: str
    date: str
    """When the run ended, in UTC."""
    loss: float
    """Nats a token on the whole validation split."""
    bits_per_byte: float
    context_length: int
    """Of the windows it was validated in."""
    band: Band | None
    """What is to be expected of the preset at this budget; None where nothing is known."""


@dataclass(frozen=True)
class Group:
    """The finished runs on one dataset, the lowest loss first."""

    dataset: str
    digest: str
    vocab_size: int
    entries: list[Entry]


def board(runs: Path, *, progress: Progress = silent) -> list[Group]:
    """All runs beneath `runs` that are done, by dataset: that of the lowest bits per byte first."""
    found = list_runs(runs)
    groups: dict[str, Group] = {}
    for number, directory in enumerate(found, start=1):
        progress("board", number, len(found), "runs")
        facts = directory.facts
        final = directory.final_validation() if facts["status"] == "done" else {}
        if final.get("loss") is None:
            continue
        run = directory.config
        data = facts["data"]
        place = Path(data["path"]).name, data["digest"], run.model.vocab_size
        group = groups.setdefault(data["digest"], Group(*place, []))
        group.entries.append(_entry(directory, run, facts, final))
    for group in groups.values():
        group.entries.sort(key=lambda entry: entry.loss)
    return sorted(groups.values(), key=lambda g: min(e.bits_per_byte for e in g.entries))


def _entry(
    directory: RunDirectory, run: Run, facts: dict[str, Any], final: dict[str, Any]
) -> Entry:
    life = facts["lives"][-1]
    on = life["hardware"]
    hardware = f"{on['cpu']} ({on['cores']} cores)" if on["gpu"] == "none" else on["gpu"]
    preset, changes = nearest_preset(run)
    return Entry(
        run=directory.path.name,
        preset=preset,
        changes=changes,
        tokens=facts["tokens"],
        seconds=facts["seconds"],
        hardware=hardware,
        date=life["ended"],
        loss=final["loss"],
        bits_per_byte=final["bits_per_byte"],
        context_length=final.get("context_length", run.model.context_length),
        band=expected(preset, changes, Path(facts["data"]["path"]).name, hardware),
    )


def nearest_preset(run: Run) -> tuple[str, dict[str, Any]]:
    """The preset that a run differs least from, and what it has in its place."""
    own = _curve(run)
    differing = {}
    for name, preset in PRESETS.items():
        theirs = _curve(preset())
        differing[name] = {key: own[key] for key in own if own[key] != theirs[key]}
    name = min(differing, key=lambda each: len(differing[each]))
    return name, differing[name]


def _curve(run: Run) -> dict[str, Any]:
    """What determines a curve, by dotted key; a width that auto stands for is auto."""
    model = run.model
    values = flatten(run)
    if model.ffn_width == model.model_copy(update={"d_ff": "auto"}).ffn_width:
        values["model.d_ff"] = "auto"
    return {
        key: value
        for key, value in values.items()
        if not key.startswith(("execution.", "tracking.")) and key not in _SHOWN
    }


def expected(preset: str, changes: dict[str, Any], dataset: str, hardware: str) -> Band | None:
    """The band of a preset, its budget and its dataset; another optimizer or seed leaves it."""
    if dataset != Path(PRESETS[preset]().data.tokens).name:
        return None
    for band in BANDS:
        free = {"seed"} | ({"budget.tokens"} if "budget.seconds" in band.changes else set())
        own = {
            key: value
            for key, value in changes.items()
            if key not in free and not key.startswith(("optim.", "evaluation."))
        }
        if band.preset == preset and own == dict(band.changes) and band.hardware in hardware:
            return band
    return None
