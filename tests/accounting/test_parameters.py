"""Parameters by component against the model's own."""

import pytest
import torch
from hypothesis import given

from lmray import presets
from lmray.accounting import num_parameters, over_swiglu, parameters
from lmray.config import Model
from lmray.model import TransformerLM
from tests.model.architectures import models

# FIGURES of the coursework's write-ups, section 1
A_TS = {"num_layers": 8, "d_model": 512, "num_heads": 8, "d_ff": 1408}
WRITE_UPS = [
    (presets.base_ts().model, 22_696_448),
    (presets.base_owt().model, 45_224_448),
    (presets.a_ts().model, 35_938_816),
    (presets.a_owt_tied().model, 42_082_816),
    (Model(vocab_size=32_000, **A_TS), 58_466_816),
    (
        Model(
            vocab_size=32_000,
            context_length=512,
            num_layers=12,
            d_model=1280,
            num_heads=20,
            d_ff=3456,
            tied_embeddings=True,
        ),
        278_887_680,
    ),
]


@pytest.mark.parametrize(("model", "expected"), WRITE_UPS)
def test_the_write_ups_models(model, expected):
    assert num_parameters(model) == expected


def test_the_base_by_component():
    found = parameters(presets.base_ts().model)
    assert found["attention"] + found["ffn"] + found["norms"] == 12_455_936 + 512  # ln_final
    assert sum(found.values()) - found["token embedding"] == 17_576_448


COMPONENTS = {
    "token_embeddings": "token embedding",
    "position_embeddings": "position embedding",
    "value_embeddings": "value embedding",
    "_proj": "attention",
    ".ffn.": "ffn",
    "q_norm": "query and key norms",
    "k_norm": "query and key norms",
    "value_gate": "value gates",
    "skip_weights": "skips",
    "lm_head": "head",
    "ln": "norms",
}


@given(models())
def test_every_component_of_every_model(model):
    with torch.device("meta"):
        lm = TransformerLM.from_config(model)
    counted = dict.fromkeys(parameters(model), 0)
    for name, parameter in lm.named_parameters():
        component = next(c for part, c in COMPONENTS.items() if part in name)
        counted[component] += parameter.numel()
    assert parameters(model) == counted


@pytest.mark.parametrize("ffn", ["silu", "gelu", "relu2"])
def test_the_difference_from_swiglu(ffn):
    base = presets.base_ts().model.model_dump()
    assert over_swiglu(Model(**base | {"ffn": ffn, "d_ff": "auto"})) == 0
    # A write-up matched with 2,048.
    assert over_swiglu(Model(**base | {"ffn": ffn, "d_ff": 2048})) == 4 * 2 * 512 * 32
    assert over_swiglu(Model(**base | {"ffn": ffn, "d_ff": 2112}), 1408) == 0
