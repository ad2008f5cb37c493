"""What can be said in a config.json of Hugging Face's, and what is refused in one of theirs."""

import re

import pytest
from hypothesis import given

from lmray.config import Model
from lmray.errors import CorruptionError, PreflightError
from lmray.model.huggingface_config import FAMILIES, read_config, write_config
from tests.model.architectures import ONE_SWITCH, exportable, small

BY_NAME = {family.architecture: small(**family.switches) for family in FAMILIES}
END = 3


def written(model):
    return write_config(model, "float32", END)


@given(exportable())
def test_a_config_that_was_written_is_read_back(model):
    plain = {"num_kv_heads": model.kv_heads, "d_ff": model.ffn_width, "zero_init": False}
    assert read_config(written(model)) == Model(**model.model_dump() | plain)


@pytest.mark.parametrize("architecture", BY_NAME)
def test_transformers_reads_and_writes_the_same(architecture):
    """All keys that it knows are there, so that none is at a default of its own."""
    transformers = pytest.importorskip("transformers")
    model = BY_NAME[architecture]
    config = transformers.AutoConfig.for_model(**written(model))
    assert config.architectures == [architecture]
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (END, END, None)
    assert read_config(config.to_dict()) == read_config(written(model))


EXPORTED = [
    *({}, {"qk_norm": True}, {"position": "none"}, {"norm": "sandwich"}),
    *({"num_kv_heads": 1}, {"num_kv_heads": 2}, {"tied_embeddings": True}, {"zero_init": True}),
]


@pytest.mark.parametrize("switches", [s for s in ONE_SWITCH if s not in EXPORTED], ids=str)
def test_a_model_that_no_architecture_computes_is_refused_by_its_switch(switches):
    ((name, value),) = switches.items()
    words = f"model.{name}={str(value).lower()} is computed by no architecture of Hugging Face's"
    with pytest.raises(PreflightError, match=re.escape(words)):
        written(small(tied_embeddings=True, **switches))


def test_so_is_a_combination_of_switches_that_are_fine_by_themselves():
    with pytest.raises(PreflightError, match=r"position=none and model\.qk_norm=true is computed"):
        written(small(position="none", qk_norm=True))


def test_releases_before_five_wrote_other_keys():
    """As Llama's own: RoPE's base beside its scaling, and no width of heads."""
    model = small(rope_theta=500_000.0, num_kv_heads=2)
    config = written(model) | {"rope_scaling": None, "head_dim": None, "torch_dtype": "bfloat16"}
    del config["rope_parameters"], config["attention_bias"], config["mlp_bias"], config["dtype"]
    assert read_config(config) == model
    del config["rope_theta"], config["head_dim"], config["num_key_value_heads"]
    assert read_config(config) == small(rope_theta=10_000.0, num_kv_heads=4)


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        (
            "LlamaForCausalLM",
            {"architectures": ["GPT2LMHeadModel"]},
            "architectures=GPT2LMHeadModel",
        ),
        (
            "LlamaForCausalLM",
            {"rms_norm_eps": 1e-6},
            "rms_norm_eps=1e-06 and .* rms_norm_eps=1e-05",
        ),
        ("LlamaForCausalLM", {"hidden_act": "gelu"}, "hidden_act=gelu"),
        ("LlamaForCausalLM", {"attention_bias": True}, "attention_bias=True"),
        ("LlamaForCausalLM", {"head_dim": 16}, "head_dim=16 and .* head_dim=8"),
        ("LlamaForCausalLM", {"hidden_size": 33}, "d_model=33 is not divisible"),
        ("LlamaForCausalLM", {"vocab_size": "many"}, "vocab_size='many' is not a whole number"),
        (
            "LlamaForCausalLM",
            {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}},
            "rope_type=llama3 scales rotations",
        ),
        (
            "LlamaForCausalLM",
            {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_type=linear scales rotations",
        ),
        ("Qwen3ForCausalLM", {"use_sliding_window": True}, "use_sliding_window=True"),
        ("SmolLM3ForCausalLM", {"no_rope_layers": [1, 1, 0]}, r"no_rope_layers=\[1, 1, 0\]"),
        ("Exaone4ForCausalLM", {"sliding_window": 4096}, "sliding_window=4096"),
        ("Glm4ForCausalLM", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    ],
)
def test_what_lmrays_model_does_not_compute_is_refused(architecture, changes, message):
    with pytest.raises(PreflightError, match=message):
        read_config(written(BY_NAME[architecture]) | changes)


@pytest.mark.parametrize(
    ("architecture", "key"),
    [
        ("LlamaForCausalLM", "rms_norm_eps"),
        ("SmolLM3ForCausalLM", "no_rope_layers"),
        ("Exaone4ForCausalLM", "sliding_window"),
    ],
)
def test_a_key_whose_default_is_another_model_may_not_be_absent(architecture, key):
    config = written(BY_NAME[architecture])
    del config[key]
    with pytest.raises(PreflightError, match=f"{key}=absent and lmray's model computes"):
        read_config(config)


def test_what_is_no_config_of_a_model():
    for record in ([], {}, {"architectures": []}):
        with pytest.raises(CorruptionError, match="names no architecture"):
            read_config(record)
    with pytest.raises(CorruptionError, match="it lacks hidden_size"):
        read_config({k: v for k, v in written(small()).items() if k != "hidden_size"})
