"""Which of Hugging Face's architectures compute what a model does, and their config.json.

An architecture is listed here if it is exactly the same function: the same layers in the same
order, up to the order of a head's dimensions. Everything else is refused by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from lmray.config import Architecture, Model
from lmray.errors import CorruptionError, PreflightError
from lmray.refusal import explain

_EPS = 1e-5
"""What lmray's norms add to the mean square."""


@dataclass(frozen=True)
class Family:
    """An architecture of `transformers`, and the switches with which lmray's model is the same."""

    architecture: str
    model_type: str
    switches: Mapping[str, Any]
    norms: dict[str, str]
    """The norms of a block by lmray's names."""
    settings: Callable[[Model], dict[str, Any]]
    """Keys of config.json that are its own; a file without them means another model."""
    halves: bool = True
    """RoPE rotates a head's first half with its second, not neighbours."""
    joined_ffn: bool = False
    """One matrix for the two that read the input of the feed-forward layer."""


_PRE = {"ln1": "input_layernorm", "ln2": "post_attention_layernorm"}
_RES_POST = {"ln1": "post_attention_layernorm", "ln2": "post_feedforward_layernorm"}
_SANDWICH = _PRE | {"ln1_out": "post_self_attn_layernorm", "ln2_out": "post_mlp_layernorm"}


def _everywhere(model: Model) -> list[str]:
    return ["full_attention"] * model.num_layers


FAMILIES = (
    Family("LlamaForCausalLM", "llama", {}, _PRE, lambda model: {}),
    Family("Qwen3ForCausalLM", "qwen3", {"qk_norm": True}, _PRE, lambda model: {}),
    Family(
        *("SmolLM3ForCausalLM", "smollm3", {"position": "none"}, _PRE),
        # A 1 would be a layer that rotates.
        lambda model: {"no_rope_layers": [0] * model.num_layers},
    ),
    Family(
        *("Exaone4ForCausalLM", "exaone4", {"norm": "res_post", "qk_norm": True}, _RES_POST),
        lambda model: {"sliding_window": None, "layer_types": _everywhere(model)},
    ),
    Family(
        *("Glm4ForCausalLM", "glm4", {"norm": "sandwich"}, _SANDWICH),
        lambda model: {"partial_rotary_factor": 1.0},
        halves=False,
        joined_ffn=True,
    ),
)
"""Beside `switches` all are at their defaults, but for those that change no function."""

_ANY = ("num_kv_heads", "tied_embeddings", "zero_init")
"""Switches that every family has, or that only say how training begins."""


def family_of(model: Architecture) -> Family:
    """The architecture that computes what the model does.

    Raises PreflightError, naming the switches, if there is none.
    """
    switches = {name: v for name, v in model.departures().items() if name not in _ANY}
    for family in FAMILIES:
        if family.switches == switches:
            return family
    foreign = {
        name: value
        for name, value in switches.items()
        if not any(family.switches.get(name) == value for family in FAMILIES)
    }
    known = ", ".join(
        f"{_assigned(family.switches) or 'the defaults'} as {family.architecture}"
        for family in FAMILIES
    )
    raise PreflightError(
        f"{_assigned(foreign or switches)} is computed by no architecture of Hugging Face's that "
        f"lmray knows, which are {known}; train such a model, or use this one with `lmray "
        f"generate` and `lmray eval`"
    )


def _assigned(switches: Mapping[str, Any]) -> str:
    return " and ".join(f"model.{name}={str(value).lower()}" for name, value in switches.items())


def write_config(model: Model, dtype: str, end_of_text: int) -> dict[str, Any]:
    """The contents of config.json; `dtype` as torch names it.

    Raises PreflightError as `family_of`.
    """
    family = family_of(model)
    return {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **_function(model, family),
        "rope_theta": model.rope_theta,  # where releases before 5 of transformers look
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta}
        | {k: v for k, v in family.settings(model).items() if k == "partial_rotary_factor"},
        "attention_dropout": 0.0,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": None,
        "dtype": dtype,
        "torch_dtype": dtype,  # the same for releases before 4.56
        "use_cache": True,
    }


def _function(model: Model, family: Family) -> dict[str, Any]:
    """The keys that say what is computed, RoPE's base aside."""
    return {
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.context_length,
        "num_hidden_layers": model.num_layers,
        "hidden_size": model.d_model,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.d_model // model.num_heads,
        "intermediate_size": model.ffn_width,
        "tie_word_embeddings": model.tied_embeddings,
        "hidden_act": "silu",
        "rms_norm_eps": _EPS,
        "attention_bias": False,
        "mlp_bias": False,
        "use_sliding_window": False,
        **family.settings(model),
    }


def read_config(record: Any) -> Model:
    """The model that a config.json describes.

    Raises PreflightError for one that lmray's model does not compute, naming key and value, and
    CorruptionError for what is no such file.
    """
    if not isinstance(record, dict) or not record.get("architectures"):
        raise CorruptionError("it names no architecture, so it is no config.json of a model")
    families = {family.architecture: family for family in FAMILIES}
    (architecture, *_) = record["architectures"]
    if architecture not in families:
        raise PreflightError(
            f"architectures={architecture} is not one that lmray's model computes; those are "
            f"{', '.join(families)}"
        )
    family = families[architecture]
    try:
        model = Model.model_validate(
            {
                "vocab_size": record["vocab_size"],
                "context_length": record["max_position_embeddings"],
                "num_layers": record["num_hidden_layers"],
                "d_model": record["hidden_size"],
                "num_heads": record["num_attention_heads"],
                "num_kv_heads": record.get("num_key_value_heads") or record["num_attention_heads"],
                "d_ff": record["intermediate_size"],
                "tied_embeddings": record.get("tie_word_embeddings", False),
                "rope_theta": _rope_theta(record),
                **family.switches,
            }
        )
    except KeyError as error:
        raise CorruptionError(f"it lacks {error.args[0]}; fetch the file again") from error
    except ValidationError as error:
        raise PreflightError(explain(error, Model, tuple(Model.model_fields))) from error
    _check(record, _function(model, family), needed={"rms_norm_eps", *family.settings(model)})
    return model


def _rope_theta(record: Mapping[str, Any]) -> float:
    rope = record.get("rope_parameters") or record.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise PreflightError(
            f"rope_type={kind} scales rotations and lmray's model has them plain; use a model "
            f"without RoPE scaling"
        )
    return rope.get("rope_theta", record.get("rope_theta", 10_000.0))


def _check(record: dict[str, Any], wanted: Mapping[str, Any], needed: set[str]) -> None:
    """Refuses what the keys of the model leave open; an absent key is `transformers`' default.

    Those that are not `needed` have lmray's value for a default, or the tensors would tell.
    """
    found = (record.get("rope_parameters") or {}) | record
    for key, value in wanted.items():
        given = found.get(key, "absent" if key in needed else value)
        if given != value and not (given is None and key not in needed):
            raise PreflightError(
                f"{key}={given} and lmray's model computes {key}={value} only; use a model with "
                f"that"
            )
