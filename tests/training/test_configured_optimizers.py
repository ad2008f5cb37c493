"""Which parameter is moved by which rule, and that each configuration resumes bit for bit."""

import copy
from pathlib import Path

import pytest
import torch

from lmray.config import Model, Optim, override
from lmray.dataset import open_splits
from lmray.model import TransformerLM
from lmray.training import checkpoint
from lmray.training.loop import train
from lmray.training.optimizers import SGD, AdamW, Joint, Muon, make_optimizer
from tests.small import small_run


def model():
    torch.manual_seed(0)
    return TransformerLM(32, 8, 16, 2, 2, 24, 1e4)


def named(net, group):
    names = {param: name for name, param in net.named_parameters()}
    return {names[param] for param in group["params"]}


def test_adamw_is_one_group_that_decays():
    net = model()
    optimizer = make_optimizer(net, Optim())
    assert type(optimizer) is AdamW
    (group,) = optimizer.param_groups
    assert group["params"] == list(net.parameters())
    assert group["weight_decay"] == 0.1


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_no_decay_excepts_norms_and_by_option_embeddings(name):
    net = model()
    norms = {n for n, p in net.named_parameters() if p.ndim == 1}
    assert len(norms) == 5
    for no_decay, expected in (
        ("norms", norms),
        ("norms+embeddings", norms | {"token_embeddings.weight"}),
    ):
        optimizer = make_optimizer(net, Optim(name=name, no_decay=no_decay))
        decays, rests = optimizer.param_groups
        assert (decays["weight_decay"], rests["weight_decay"]) == (0.1, 0.0)
        assert named(net, rests) == expected
        assert named(net, decays) == {n for n, _ in net.named_parameters()} - expected


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_no_decay_excepts_the_gates_of_value_embeddings(name):
    net = TransformerLM.from_config(
        Model(vocab_size=32, d_model=16, num_layers=2, num_heads=2, value_embeddings=True)
    )
    gates = {n for n, _ in net.named_parameters() if n.endswith("value_gate")}
    assert len(gates) == 2
    optimizer = make_optimizer(net, Optim(name=name, no_decay="norms"))
    decaying = [group for group in optimizer.param_groups if group["weight_decay"] > 0]
    assert not gates & set().union(*(named(net, group) for group in decaying))


@pytest.mark.parametrize("name", ["muon", "normuon"])
def test_muon_moves_the_hidden_matrices_and_adamw_the_rest(name):
    net = model()
    optimizer = make_optimizer(net, Optim(name=name, lr=1e-3, matrix_lr=0.03))
    assert isinstance(optimizer, Joint)
    hidden, rest = optimizer.param_groups
    assert hidden["normalised"] == (name == "normuon")
    assert (hidden["peak_lr"], rest["peak_lr"]) == (0.03, 1e-3)
    expected = {
        f"layers.{layer}.{matrix}.weight"
        for layer in (0, 1)
        for matrix in (
            *(f"attn.{part}_proj" for part in ("q", "k", "v", "output")),
            *(f"ffn.w{i}" for i in (1, 2, 3)),
        )
    }
    assert named(net, hidden) == expected
    assert named(net, rest) == {n for n, _ in net.named_parameters()} - expected


def test_joint_optimizers_step_save_and_load_as_one():
    def make():
        generator = torch.Generator().manual_seed(0)
        pair = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in [(4, 3), (3,)]]
        return pair, Joint(Muon(pair[:1]), SGD(pair[1:], lr=0.1, momentum=0.5))

    def run(pair, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            sum((p**2).sum() for p in pair).backward()
            optimizer.step()

    straight, optimizer = make()
    run(straight, optimizer, 6)
    pair, first = make()
    run(pair, first, 3)
    second_pair, second = make()
    with torch.no_grad():
        for mine, its in zip(second_pair, pair, strict=True):
            mine.copy_(its)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(second_pair, second, 3)
    for mine, its in zip(straight, second_pair, strict=True):
        assert torch.equal(mine, its)


@pytest.mark.parametrize(
    "changes",
    [
        {"optim.name": "adamw", "optim.no_decay": "norms"},
        {"optim.name": "muon"},
        {"optim.name": "normuon", "optim.no_decay": "norms+embeddings"},
        {"optim.name": "sgd", "optim.lr": 0.1, "optim.momentum": 0.9},
        {"optim.name": "sgd", "optim.lr": 0.1, "optim.momentum": 0.0},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_optimizer_learns_and_resumes_bit_for_bit(
    changes, small_dataset: Path, tmp_path: Path
):
    run = override(small_run(small_dataset), changes)

    def go(folder: Path, stop_after: int = 0):
        records: list[dict] = []
        train(
            run,
            open_splits(small_dataset),
            folder,
            identity={},
            report=records.append,
            interrupted=lambda: bool(stop_after) and records[-1]["step"] >= stop_after,
        )
        weights = checkpoint.newest_first(folder)[0] / "model.safetensors"
        return [(r["step"], r["loss"]) for r in records if "loss" in r], weights.read_bytes()

    straight, weights = go(tmp_path / "straight")
    assert straight[-1][1] < straight[0][1] - 0.2
    before, _ = go(tmp_path / "broken", stop_after=7)
    after, resumed = go(tmp_path / "broken")
    assert before + after == straight
    assert resumed == weights
