"""The coursework's save_checkpoint and load_checkpoint."""

import io

import pytest
import torch
from torch import nn

from lmray.errors import CorruptionError
from lmray.training import AdamW, load_checkpoint, save_checkpoint

INPUTS = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
KINDS = {
    "lmray": lambda params: AdamW(params, lr=0.1),
    "torch": lambda params: torch.optim.AdamW(params, lr=0.1),
    "momentum": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
}


def make(kind, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 1))
    return model, KINDS[kind](model.parameters())


def run(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model(INPUTS).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["path", "str", "file"])
def test_goes_on_bit_for_bit(tmp_path, kind, place):
    straight, optimizer = make(kind)
    run(straight, optimizer, 5)
    optimizer.param_groups[0]["lr"] = 0.05
    out = {"path": tmp_path / "c", "str": str(tmp_path / "c"), "file": io.BytesIO()}[place]
    save_checkpoint(straight, optimizer, 5, out)
    run(straight, optimizer, 5)

    resumed, fresh = make(kind, seed=1)
    if isinstance(out, io.BytesIO):
        out.seek(0)
    assert load_checkpoint(out, resumed, fresh) == 5
    assert fresh.param_groups[0]["lr"] == 0.05
    run(resumed, fresh, 5)
    for mine, its in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_hyperparameters_and_state_come_back_equal(tmp_path):
    model, optimizer = make("lmray")
    run(model, optimizer, 2)
    save_checkpoint(model, optimizer, 2, tmp_path / "c")
    other, fresh = make("lmray", seed=1)
    load_checkpoint(tmp_path / "c", other, fresh)
    before, after = optimizer.state_dict(), fresh.state_dict()
    assert before["param_groups"] == after["param_groups"]
    assert before["state"].keys() == after["state"].keys()
    assert all(state["step"] == 2 for state in after["state"].values())


def test_an_optimizer_that_has_not_stepped(tmp_path):
    model, optimizer = make("lmray")
    save_checkpoint(model, optimizer, 0, tmp_path / "c")
    assert load_checkpoint(tmp_path / "c", *make("lmray", seed=1)) == 0


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d[:20], lambda d: b"PK" + d])
def test_refuses_what_is_no_checkpoint(tmp_path, damage):
    model, optimizer = make("lmray")
    save_checkpoint(model, optimizer, 1, tmp_path / "c")
    (tmp_path / "c").write_bytes(damage((tmp_path / "c").read_bytes()))
    before = model.state_dict()["0.weight"].clone()
    with pytest.raises(CorruptionError, match="truncated or no checkpoint"):
        load_checkpoint(tmp_path / "c", model, optimizer)
    assert torch.equal(model.state_dict()["0.weight"], before)
