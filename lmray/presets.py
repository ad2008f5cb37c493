"""Named configurations, each a function that returns a Run; YAML and JSON files that extend them.

A file is a mapping of the sections of `lmray.config`; `extends:` names a preset or another file:

    extends: base_ts
    optim: {lr: 3e-3}
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lmray.config import Budget, Data, Evaluation, Execution, Model, Optim, Run, build, override
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
            d_ff="auto",  # 1344; an FFN of two matrices is as wide as has its parameters
        ),
        data=Data(tokens="tokens/tinystories", batch_size=128),
        optim=Optim(lr=3e-3),
        budget=Budget(tokens=327_680_000),
    )


def base_owt() -> Run:
    """The coursework's base on OpenWebText: 45,224,448 parameters."""
    return override(base_ts(), {"model.vocab_size": 32_000, "data.tokens": "tokens/openwebtext"})


def a_ts() -> Run:
    """Write-up A's model on TinyStories: 35,938,816 parameters, 163,840,000 tokens.

    Its FFN is wider than auto's 1344; one of two matrices has as many parameters at d_ff=2112.
    """
    return override(
        base_ts(),
        {
            "model.num_layers": 8,
            "model.num_heads": 8,
            "model.d_ff": 1408,
            "optim.lr": 2e-3,
            "budget.tokens": 163_840_000,
        },
    )


def a_owt_tied() -> Run:
    """Write-up A's best on OpenWebText: 42,082,816 parameters, tied, 1,310,720,000 tokens."""
    return override(
        a_ts(),
        {
            "model.vocab_size": 32_000,
            "model.tied_embeddings": True,
            "data.tokens": "tokens/openwebtext",
            "budget.tokens": 1_310_720_000,
        },
    )


PRESETS: dict[str, Callable[[], Run]] = {
    preset.__name__: preset for preset in (tiny, base_ts, base_owt, a_ts, a_owt_tied)
}


def load(source: str) -> Run:
    """The Run that a preset's name or a YAML or JSON file's path stands for.

    Raises UsageError for an unknown preset, an unreadable file, a circle of `extends`, and for
    what `build` refuses.
    """
    return build(_values(source, ()), source=source)


def _values(source: str, chain: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a preset or a file; `chain` are the files that extend one another up to it."""
    if source in PRESETS:
        return PRESETS[source]().model_dump()
    path = chain[-1].parent / source if chain else Path(source)
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise UsageError(
            f"no preset named {source!r}; the presets are {', '.join(PRESETS)}, "
            f"or name a .yaml or .json file"
        )
    if path.resolve() in [file.resolve() for file in chain]:
        raise UsageError(f"{path} extends itself in a circle; remove one `extends`")
    own = read_mapping(path)
    base = own.pop("extends", None)
    if base is None:
        return own
    try:
        return _merge(_values(str(base), (*chain, path)), own)
    except UsageError as error:
        raise UsageError(f"{path} extends {base}: {error}") from None


def _merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a YAML or JSON file whose top is a mapping.

    Raises UsageError if it cannot be read, does not parse, says a key twice or is something else.
    """
    try:
        text = path.read_bytes()
        if path.suffix == ".json":
            value = json.loads(text, object_pairs_hook=_unique)
        else:
            value = yaml.load(text, Loader=_Loader)
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror}); check the path") from None
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} does not parse ({reason}); repair it") from None
    if not isinstance(value, dict):
        raise UsageError(
            f"{path} holds {value!r:.80}, not a mapping of sections; "
            f"write it as in optim: {{lr: 1e-3}}"
        )
    return value


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    mapping = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise ValueError(f"key {key!r} is not text")
        if key in mapping:
            raise ValueError(f"key {key!r} is there twice")
        mapping[key] = value
    return mapping


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: PyYAML's are those of 1.1, in which 1e-3 is text and off is a boolean."""


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    return _unique(loader.construct_pairs(node, deep=True))


_SIGN = list("-+.0123456789")
_Loader.yaml_implicit_resolvers = {}
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?(0|[1-9][\d_]*)", _SIGN),
    ("float", r"[-+]?(\.\d+|\d[\d_]*(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.inf|\.nan", _SIGN),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )
