import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lmray.config import (
    KEYS,
    Run,
    build,
    flatten,
    override,
    parse_assignments,
    parse_value,
)
from lmray.errors import UsageError
from lmray.presets import tiny
from lmray.storage import canonical_json
from tests.test_run_id import OTHER

DIGEST = "d" * 64


def changed(*assignments: str) -> Run:
    return override(Run(), parse_assignments(list(assignments)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=12,
)


def shuffled(value: Any, source: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(inner, source)) for key, inner in value.items()]
        source.shuffle(items)
        return dict(items)
    return [shuffled(inner, source) for inner in value] if isinstance(value, list) else value


@settings(deadline=None)
@given(json_values, st.integers())
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: Any, seed: int) -> None:
    assert canonical_json(value) == canonical_json(shuffled(value, random.Random(seed)))


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf], {"a": math.nan}])
def test_canonical_json_refuses_what_json_has_no_number_for(value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-1e3", -1000.0),
        ("1_000", 1000),
        ("true", True),
        ("false", False),
        ("none", "none"),
        ("None", None),
        (".5", 0.5),
        ("cuda", "cuda"),
        ("runs/a-b", "runs/a-b"),
        ("'1'", "1"),
        ("", ""),
        ("{[]: 1}", "{[]: 1}"),
        ("(" * 10_000, "(" * 10_000),
    ],
)
def test_a_value_reads_as_a_literal_or_as_text(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("budget.tokens=1e6", 1_000_000),
        ("budget.tokens = 2_000_000", 2_000_000),
        ("optim.clip_norm=none", "none"),
        ("optim.clip_norm=.5", 0.5),
        ("model.d_ff=auto", "auto"),
        ("data.tokens=2024", "2024"),
        ("data.tokens=1e-3", "1e-3"),
        ("data.tokens='my tokens'", "my tokens"),
        ("data.tokens=a=b", "a=b"),
        ("tracking.project=true", "true"),
    ],
)
def test_an_assignment_sets_its_field(assignment: str, value: Any) -> None:
    found = flatten(changed(assignment))[assignment.partition("=")[0].strip()]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("assignment", "rule", "remedy"),
    [
        (
            "optim.lr=1000",
            "optim.lr=1000 is not a finite number above 0 and at most 1",
            "write it as in optim.lr=0.001",
        ),
        (
            "optim.lr=fast",
            "optim.lr='fast' is not a finite number above 0 and at most 1",
            "write it as in optim.lr=0.001",
        ),
        (
            "model.d_ff=abc",
            "model.d_ff='abc' is neither a whole number of at least 1 nor 'auto'",
            "write it as in model.d_ff=auto",
        ),
        (
            "model.num_layers=0",
            "model.num_layers=0 is not a whole number of at least 1",
            "write it as in model.num_layers=4",
        ),
        (
            "model.num_layers=2.5",
            "model.num_layers=2.5 is not a whole number of at least 1",
            "write it as in model.num_layers=4",
        ),
        (
            "seed=-1",
            "seed=-1 is not a whole number of at least 0 and below 4294967296",
            "write it as in seed=0",
        ),
        (
            "tracking.wandb=on",
            "tracking.wandb='on' is neither 'off' nor 'offline' nor 'online'",
            "write it as in tracking.wandb=off",
        ),
        (
            "optim.name=adam",
            "optim.name='adam' is neither 'adamw' nor 'muon' nor 'normuon' nor 'sgd'",
            "write it as in optim.name=adamw",
        ),
        (
            "optim.matrix_lr=20",
            "optim.matrix_lr=20 is not a finite number above 0 and at most 1",
            "write it as in optim.matrix_lr=0.02",
        ),
        (
            "optim.no_decay=all",
            "optim.no_decay='all' is neither 'none' nor 'norms' nor 'norms+embeddings'",
            "write it as in optim.no_decay=none",
        ),
        (
            "model.d_model=100",
            "model.d_model=100 is not divisible by model.num_heads=16",
            "make it a multiple of 16 or change num_heads",
        ),
        (
            "model.d_model=48",
            "model.d_model=48 / model.num_heads=16 is an odd head width and RoPE rotates pairs",
            "make it even",
        ),
        (
            "model.num_kv_heads=3",
            "model.num_heads=16 is not divisible by model.num_kv_heads=3",
            "choose a divisor of 16 or auto",
        ),
        (
            "model.logit_softcap=0",
            "model.logit_softcap=0 is neither a finite number above 0 nor 'none'",
            "write it as in model.logit_softcap=none",
        ),
        (
            "model.norm=layer",
            (
                "model.norm='layer' is neither 'pre' nor 'post' nor 'res_post' nor 'sandwich' nor "
                "'none'"
            ),
            "write it as in model.norm=pre",
        ),
        (
            "model.qk_norm=1",
            "model.qk_norm=1 is not true or false",
            "write it as in model.qk_norm=false",
        ),
        (
            "budget.tokens=100",
            (
                "budget.tokens=100 has no room for one step of data.batch_size=128 x "
                "model.context_length=256 = 32768 tokens"
            ),
            "raise the budget or lower the batch",
        ),
        (
            "data.batch_unit=tokens",
            "data.batch_size=128 tokens is not divisible by model.context_length=256",
            "make it a multiple of that",
        ),
        (
            "execution.workers=3",
            "data.batch_size=128 is not divisible by execution.workers=3",
            "choose a number of workers that divides the batch",
        ),
        (
            "evaluation.prefix_tokens=255",
            ("evaluation.prefix_tokens=255 is shorter than one window of model.context_length=256"),
            "raise it to that",
        ),
    ],
)
def test_an_impossible_value_is_refused_with_its_rule_and_a_remedy(
    assignment: str, rule: str, remedy: str
) -> None:
    with pytest.raises(UsageError) as refused:
        changed(assignment)
    assert str(refused.value) == f"{rule}; {remedy}"


NUMBERS = [
    key
    for key, default in flatten(Run()).items()
    if any(
        isinstance(value, int | float) and not isinstance(value, bool)
        for value in (default, OTHER[key])
    )
]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, True, None, [1], {"a": 1}, "1", "", -(10**400)]
)
def test_a_number_is_nothing_else(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{key}=.* is n(ot|either) a .*number"):
        override(Run(), {key: value})


def test_all_problems_are_named_once() -> None:
    with pytest.raises(UsageError) as refused:
        changed("optim.lr=2", "model.d_ff=abc", "execution.device=tpu")
    sentences = str(refused.value).split("; also ")
    assert [sentence.partition("=")[0] for sentence in sentences] == [
        "model.d_ff",
        "optim.lr",
        "execution.device",
    ]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lr", "unknown key 'lr'; did you mean optim.lr?"),
        ("model.lr", "unknown key 'model.lr'; did you mean optim.lr?"),
        ("tokens", "unknown key 'tokens'; did you mean data.tokens or budget.tokens?"),
        ("modle.d_model", "unknown key 'modle.d_model'; did you mean model.d_model?"),
        (
            "data.batchsize",
            (
                "unknown key 'data.batchsize'; did you mean data.batch_size or data.batch_unit "
                "or data.batch_ramp?"
            ),
        ),
        ("xyzzy", f"unknown key 'xyzzy'; the keys are {', '.join(KEYS)}"),
    ],
)
def test_an_unknown_key_names_the_closest(key: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        override(Run(), {key: 1})
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": {}}, "f.yaml: unknown key 'optimizer'; did you mean optim or optim.lr"),
        ({"optim": {"lrr": 1}}, "f.yaml: unknown key 'optim.lrr'; did you mean optim.lr"),
        ({"optim.lr": 1}, r"f.yaml: 'optim.lr' is a key of a section; write optim: \{lr: ...\}"),
        ({"optim": 5}, r"optim=5 is not a mapping of keys; write it as in optim: \{lr: 0.001\}"),
        ({"optim": None}, r"optim=None is not a mapping of keys"),
        ({"optim": ["lr", 1]}, r"optim=\['lr', 1\] is not a mapping of keys"),
        ({"seed": {"a": 1}}, r"seed=\{'a': 1\} is not a whole number"),
    ],
)
def test_nested_values_of_another_shape_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(values, source="f.yaml")


@pytest.mark.parametrize("text", ["optim.lr", "optim.lr:1", ""])
def test_an_assignment_needs_an_equals_sign(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not key=value; write it as in optim.lr=1e-3"):
        parse_assignments([text])


@settings(deadline=None)
@given(st.sampled_from(KEYS), st.text(max_size=20) | st.from_regex(r"-?[0-9.e_]{1,8}"))
def test_any_text_sets_a_field_or_is_refused_in_one_line(key: str, text: str) -> None:
    values = parse_assignments([f"{key}={text}"])
    try:
        run = override(Run(), values)
    except UsageError as error:
        message = str(error)
    else:
        assert build(run.model_dump(), source="again") == run
        return
    assert len(message.splitlines()) == 1
    assert key in message


def test_overrides_are_validated_together() -> None:
    assert changed("model.d_model=96", "model.num_heads=6").model.d_model == 96


def test_flat_values_rebuild_the_run() -> None:
    assert override(Run(), flatten(tiny())) == tiny()


def test_a_run_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Run().model.d_model = 64  # pyrefly: ignore


def test_the_budget_pays_for_whole_steps() -> None:
    run = changed("budget.tokens=100_000", "data.batch_size=8", "model.context_length=256")
    assert (run.batches.unit, run.steps) == (2048, 48)
    in_tokens = override(run, {"data.batch_unit": "tokens", "data.batch_size": 2048})
    assert (in_tokens.sequences_per_step, in_tokens.batches.unit) == (8, 2048)
