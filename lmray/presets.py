"""Named configurations, each a function that returns a Run; YAML and JSON files that extend them.

A file is a mapping of the sections of `lmray.config`, with `extends:` naming a preset or another file:

    extends: base_ts
    optim: {lr: 3e-3}
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lmray.config import Budget, Data, Evaluation, Execution, Model, Optim, Run, build
from lmray.errors import UsageError


def tiny() -> Run:
    """About a million parameters at vocabulary 2,048: minutes on two CPU cores."""
    return Run(
        model=Model(vocab_size=2048, context_length=128, num_layers=4, d_model=128, num_heads=4),
        data=Data(tokens="tokens/tiny", batch_size=16),
        optim=Optim(lr=3e-3),
        budget=Budget(tokens=2_097_152),
        evaluation=Evaluation(interval_tokens=131_072, prefix_tokens=32_768),
        execution=Execution(checkpoint_interval_steps=128),
    )


def base_ts() -> Run:
    """The coursework's base on TinyStories: 22,696,448 parameters, 327,680,000 tokens."""
    return Run(
        model=Model(
            vocab_size=10_000,
            context_length=256,
            num_layers=4,
            d_model=512,
            num_heads=16,
            d_ff=1344,
        ),
        data=Data(tokens="tokens/tinystories", batch_size=128),
        optim=Optim(lr=3e-3),
        budget=Budget(tokens=327_680_000),
    )


def base_owt() -> Run:
    """The coursework's base on OpenWebText: 45,224,448 parameters."""
    base = base_ts()
    return base.model_copy(
        update={
            "model": base.model.model_copy(update={"vocab_size": 32_000}),
            "data": base.data.model_copy(update={"tokens": "tokens/openwebtext"}),
        }
    )


PRESETS: dict[str, Callable[[], Run]] = {
    preset.__name__: preset for preset in (tiny, base_ts, base_owt)
}


def load(source: str) -> Run:
    """The Run that a preset's name or a YAML or JSON file's path stands for.

    Raises UsageError for an unknown preset, an unreadable file, a circle of `extends`, an unknown key.
    """
    return build(_values(source, chain=()), source=source)


def _values(source: str, chain: tuple[str, ...]) -> dict[str, Any]:
    if source in PRESETS:
        return PRESETS[source]().model_dump()
    path = Path(source)
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise UsageError(
            f"no preset named {source!r}; the presets are {', '.join(PRESETS)}, or name a .yaml or .json file"
        )
    if str(path.resolve()) in chain:
        raise UsageError(
            f"{source} extends itself by way of {' -> '.join(chain)}; break the circle"
        )
    own = read_mapping(path)
    if "extends" not in own:
        return own
    base = str(own.pop("extends"))
    if base not in PRESETS:
        base = str(path.parent / base)
    return _merge(_values(base, (*chain, str(path.resolve()))), own)


def _merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


class _Loader(yaml.SafeLoader):
    """YAML with the numbers people write: 1e-3 is a float, as in YAML 1.2 (PyYAML's 1.1 reads text)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a YAML or JSON file whose top is a mapping.

    Raises UsageError if it cannot be read, does not parse or is something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_Loader)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; check the path") from None
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path} does not parse: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise UsageError(
            f"{path} holds {type(value).__name__}, not a mapping of sections; see docs/design.md"
        )
    return value
