"""The model's section: widths that follow, and combinations that cannot be."""

from typing import Any

import pytest

from lmray.config import Model
from lmray.errors import UsageError
from tests.test_config import changed


@pytest.mark.parametrize(
    ("d_model", "width"), [(512, 1344), (768, 2048), (1024, 2752), (128, 320), (16, 64)]
)
def test_the_automatic_ffn_is_eight_thirds_wide(d_model: int, width: int) -> None:
    model = Model(d_model=d_model, num_heads=2)
    assert model.ffn_width == width
    assert abs(width - d_model * 8 / 3) <= 32 or width == 64


@pytest.mark.parametrize("ffn", ["swiglu", "silu", "gelu", "relu2"])
@pytest.mark.parametrize("d_ff", [1, 1000])
def test_a_given_ffn_width_is_kept(ffn: Any, d_ff: int) -> None:
    assert Model(d_ff=d_ff, ffn=ffn).ffn_width == d_ff


@pytest.mark.parametrize("d_model", [16, 128, 512, 1280])
@pytest.mark.parametrize("ffn", ["silu", "gelu", "relu2"])
def test_two_matrices_cost_what_swiglus_three_do(ffn: Any, d_model: int) -> None:
    plain = Model(d_model=d_model, num_heads=2, ffn=ffn)
    assert 2 * plain.ffn_width == 3 * Model(d_model=d_model, num_heads=2).ffn_width


def test_only_rotations_need_an_even_head() -> None:
    assert Model(d_model=15, num_heads=5, position="learned").d_model == 15


def test_unet_skips_need_a_pair_of_layers() -> None:
    with pytest.raises(
        UsageError, match=r"unet_skips=true .* model.num_layers=1; give it at least 2"
    ):
        changed("model.num_layers=1", "model.unet_skips=true")
