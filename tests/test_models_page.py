"""docs/models.md has every switch by its key, and the parameters that it says."""

import re
from pathlib import Path
from typing import get_args

import pytest

from lmray.accounting import num_parameters
from lmray.accounting.parameters import kv_width
from lmray.config import KEYS, Model, Optim, override, parse_assignments
from lmray.presets import PRESETS, base_ts

PAGE = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
ROWS = re.findall(r"^\| `(model\.\w+=\w+)`.* \| `(.+)` \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("setting", "formula"), ROWS)
def test_a_switch_adds_the_parameters_that_the_page_says(setting: str, formula: str) -> None:
    default = base_ts()
    model = override(default, parse_assignments([setting])).model
    letters = {
        "V": model.vocab_size,
        "S": model.context_length,
        "L": model.num_layers,
        "d": model.d_model,
        "H": model.num_heads,
        "G": model.kv_heads,
        "e": kv_width(model),
    }
    assert num_parameters(model) - num_parameters(default.model) == eval(formula, letters)


def test_every_key_and_every_choice_is_on_the_page() -> None:
    for key in KEYS:
        if key.startswith(("model.", "optim.")):
            assert re.search(rf"`{re.escape(key)}\b", PAGE), key
    for section, name in ((Model, "model"), (Optim, "optim")):
        for key, field in section.model_fields.items():
            for choice in get_args(field.annotation):
                if isinstance(choice, str):
                    (lines,) = [[x for x in PAGE.splitlines() if f"`{name}.{key}" in x]]
                    assert any(choice in line for line in lines), (key, choice)
    assert len(ROWS) == len(re.findall(r"^\| `model\.", PAGE, re.MULTILINE))


def test_the_presets_are_on_the_page_with_their_parameters() -> None:
    for name, preset in PRESETS.items():
        found = re.search(rf"`{name}`(?: \(([\d,]+))?", PAGE)
        assert found, name
        if found[1]:
            assert int(found[1].replace(",", "")) == num_parameters(preset().model)
