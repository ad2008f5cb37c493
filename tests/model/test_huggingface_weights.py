"""The same weights in Hugging Face's models give the same logits, where transformers is there."""

import pytest
import torch
from hypothesis import given, settings

from lmray.config import Model
from lmray.errors import CorruptionError
from lmray.model import TransformerLM
from lmray.model.huggingface_config import write_config
from lmray.model.huggingface_weights import from_huggingface, to_huggingface
from tests.model.architectures import exportable, small

transformers = pytest.importorskip("transformers")


def random_model(model):
    """With gains other than one, which would hide where they stand."""
    torch.manual_seed(0)
    lm = TransformerLM.from_config(Model(**model.model_dump() | {"zero_init": False}))
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.dim() == 1:
                parameter.mul_(1 + torch.rand_like(parameter))
    return lm


def theirs(lm, model):
    config = transformers.AutoConfig.for_model(**write_config(model, "float32", 0))
    reference = transformers.AutoModelForCausalLM.from_config(config).eval()
    missing, unexpected = reference.load_state_dict(
        to_huggingface(model, lm.state_dict()), strict=False
    )
    assert not unexpected
    assert missing == (["lm_head.weight"] if model.tied_embeddings else [])
    reference.tie_weights()
    return reference


@settings(max_examples=20)
@given(exportable())
def test_logits_equal_those_of_hugging_face(model):
    lm = random_model(model)
    ids = torch.randint(model.vocab_size, (2, model.context_length))
    with torch.no_grad():
        found = theirs(lm, model)(ids).logits
        torch.testing.assert_close(lm(ids), found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
def test_so_they_do_far_into_a_context(theta):
    model = small(context_length=1024, d_model=128, d_ff=256, num_kv_heads=2, rope_theta=theta)
    lm = random_model(model)
    ids = torch.randint(model.vocab_size, (1, 1024))
    with torch.no_grad():
        found = theirs(lm, model)(ids).logits
        torch.testing.assert_close(lm(ids), found, rtol=1e-4, atol=1e-4)


@given(exportable())
def test_there_and_back_not_a_bit_changes(model):
    state = random_model(model).state_dict()
    back = from_huggingface(model, to_huggingface(model, state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], weight) for name, weight in state.items())


def test_a_tied_matrix_may_stand_in_the_file_twice():
    model = small(tied_embeddings=True)
    state = random_model(model).state_dict()
    tensors = to_huggingface(model, state)
    twice = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    assert from_huggingface(model, twice).keys() == state.keys()
    twice["lm_head.weight"][0, 0] += 1
    with pytest.raises(CorruptionError, match=r"lm_head\.weight is no tensor of the model"):
        from_huggingface(model, twice)


NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({NORM: None}, rf"{NORM} has nothing and .* needs \(32,\)"),
        ({NORM: torch.ones(31)}, rf"{NORM} has the shape \(31,\) and .* needs \(32,\)"),
        ({"model.layers.3.input_layernorm.weight": torch.ones(32)}, "is no tensor of the model"),
        ({"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}, "q_proj.bias is no tensor"),
    ],
)
def test_tensors_of_another_model_are_refused(changes, message):
    model = small()
    tensors = to_huggingface(model, random_model(model).state_dict()) | changes
    with pytest.raises(CorruptionError, match=message):
        from_huggingface(model, {k: v for k, v in tensors.items() if v is not None})


def test_a_joined_matrix_of_another_width_is_refused():
    model = small(norm="sandwich")
    tensors = to_huggingface(model, random_model(model).state_dict())
    name = "model.layers.0.mlp.gate_up_proj.weight"
    with pytest.raises(CorruptionError, match=r"gate_proj.weight has the shape \(47, 32\)"):
        from_huggingface(model, tensors | {name: tensors[name][:-2]})
