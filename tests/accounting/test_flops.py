"""FLOPs against torch's counter."""

import pytest
import torch
from hypothesis import given, settings
from torch.utils.flop_counter import FlopCounterMode

from lmray import presets
from lmray.accounting import forward_flops, optimizer_flops, six_n_d, training_flops
from lmray.config import Model
from lmray.model import TransformerLM, cross_entropy
from tests.model.architectures import models


def counted(model):
    """Of the forward pass, and of a training step."""
    with torch.device("meta"):
        lm = TransformerLM.from_config(model)
        ids = torch.zeros(1, model.context_length, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        logits = lm(ids)
        forward = counter.get_total_flops()
        cross_entropy(logits, ids).backward()
    return forward, counter.get_total_flops()


@settings(max_examples=20)
@given(models())
def test_every_model_equals_torchs_counter(model):
    """With attention spelled out, for torch does not count its fused kernel on every device."""
    spelled = Model(**model.model_dump() | {"attention": "math"})
    n = model.context_length
    ours = sum(forward_flops(model, n).values()), training_flops(model, n)
    assert ours == counted(spelled)


def test_the_base_equals_torchs_counter():
    model = Model(**presets.base_ts().model.model_dump() | {"attention": "math"})
    assert (training_flops(model, 256) // 3, training_flops(model, 256)) == counted(model)


def test_training_is_as_long_as_its_tokens():
    model = presets.base_ts().model
    assert training_flops(model, 327_680_000) == 1_280_000 * training_flops(model, 256)
    assert six_n_d(22_696_448, 327_680_000) == pytest.approx(4.462e16, rel=1e-3)


def test_adamw_does_fourteen_operations_on_a_parameter():
    assert optimizer_flops(presets.base_ts().model) == 14 * 22_696_448
