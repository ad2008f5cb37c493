"""What a user is told of a value or a key that a pydantic model refuses: one sentence a problem."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel], keys: Sequence[str]) -> str:
    """One line that names each value, the rule it breaks and a value that does not.

    `keys` are the dotted keys of `model`.
    """
    # A union that a value fits nowhere is one problem to a reader and several to pydantic.
    sentences = dict.fromkeys(_sentence(problem, model, keys) for problem in error.errors())
    return "; also ".join(sentences)


def _sentence(problem: Any, model: type[BaseModel], keys: Sequence[str]) -> str:
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    path = [str(part) for part in problem["loc"]]
    if problem["type"] in ("extra_forbidden", "invalid_key"):
        return unknown_key(".".join(path), keys)
    key, rule, example = _field(model.model_json_schema(), path)
    choices = _alternatives(rule)
    expected = f"neither {' nor '.join(choices)}" if len(choices) > 1 else f"not {choices[0]}"
    return f"{key}={problem['input']!r:.80} is {expected}; write it as in {example}"


def unknown_key(key: str, keys: Sequence[str]) -> str:
    """The sentence for a key that is none of the dotted `keys`: which ones are close."""
    section, _, name = key.rpartition(".")
    if key in keys:
        return f"{key!r} is a key of a section; write {section}: {{{name}: ...}}"
    closest = [known for known in keys if known.rpartition(".")[2] == name]
    if not closest:
        sections = {known.rpartition(".")[0] for known in keys} - {key, ""}
        candidates = [*keys, *sections] if not section else keys
        closest = difflib.get_close_matches(key, candidates, n=3, cutoff=0.5)
    if closest:
        return f"unknown key {key!r}; did you mean {' or '.join(closest)}?"
    return f"unknown key {key!r}; the keys are {', '.join(keys)}"


def _field(schema: Mapping[str, Any], path: Sequence[str]) -> tuple[str, Mapping[str, Any], str]:
    """The key that `path` begins with, its JSON Schema, and how its default is written.

    After the key, pydantic's path goes on into the members of a union.
    """
    rule, known = schema, []
    written, default = "", None  # of the nearest part with one: an item of a list has none
    for part in path:
        rule = _resolve(schema, rule)
        properties = rule.get("properties", {})
        if part in properties:
            rule = properties[part]
        elif part.isdigit() and "items" in rule:
            rule = rule["items"]
        else:
            break
        known.append(part)
        if "default" in rule:
            written, default = ".".join(known), rule["default"]
    key = ".".join(known)
    if isinstance(default, dict):
        name, value = next(iter(default.items()))
        return key, rule, f"{written}: {{{name}: {value}}}"
    return key, rule, f"{written}={str(default).lower() if isinstance(default, bool) else default}"


def _resolve(schema: Mapping[str, Any], rule: Mapping[str, Any]) -> Mapping[str, Any]:
    name = rule.get("$ref", "").rpartition("/")[2]
    return schema["$defs"][name] if name else rule


def _alternatives(rule: Mapping[str, Any]) -> list[str]:
    """What a JSON Schema allows, each alternative as one says it: a whole number of at least 1."""
    if "anyOf" in rule:
        return [choice for part in rule["anyOf"] for choice in _alternatives(part)]
    if "enum" in rule or "const" in rule:
        return [repr(value) for value in rule.get("enum", [rule.get("const")])]
    nouns = {
        "integer": "a whole number",
        "number": "a finite number",
        "boolean": "true or false",
        "string": "text",
        "array": "a list",
    }
    bounds = {
        "minimum": "of at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    limits = [f"{words} {rule[bound]}" for bound, words in bounds.items() if bound in rule]
    noun = nouns.get(rule.get("type", ""), "a mapping of keys")
    return [f"{noun} {' and '.join(limits)}".strip()]
