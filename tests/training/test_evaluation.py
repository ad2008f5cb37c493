"""Validation against a naive loop over windows."""

import math
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional

from lmray.config import Model
from lmray.errors import PreflightError, UsageError
from lmray.model import TransformerLM
from lmray.training.evaluation import evaluate

T, V = 8, 32


class Tokens:
    """A split in memory."""

    def __init__(self, length):
        self.ids = np.random.default_rng(0).integers(V, size=length)
        self.token_bytes = np.arange(V) % 5 + 1

    def __len__(self):
        return len(self.ids)

    def read(self, start, stop):
        assert 0 <= start <= stop <= len(self.ids)
        return self.ids[start:stop].astype(np.int64)


def lm():
    torch.manual_seed(0)
    return TransformerLM.from_config(
        Model(vocab_size=V, context_length=T, num_layers=1, d_model=16, num_heads=2, d_ff=16)
    )


def naive(model, dataset, stop):
    """Nats and bytes of targets 1 to stop, one window after the other."""
    nats = text_bytes = 0.0
    with torch.no_grad():
        for start in range(0, stop, T):
            ids = torch.from_numpy(dataset.read(start, min(start + T, stop) + 1))
            logits = model(ids[None, :-1])[0].double()
            nats += functional.cross_entropy(logits, ids[1:], reduction="sum").item()
            text_bytes += sum(dataset.token_bytes[i] for i in ids[1:])
    return nats, text_bytes


def score(model, dataset, **changes):
    settings = {"context_length": T, "batch_size": 3, "max_tokens": "all", "device": "cpu"}
    return evaluate(model, dataset, **{**settings, **changes})


@pytest.mark.parametrize("length", [T + 1, T + 2, 2 * T, 2 * T + 1, 100, 101, 12 * T + 1])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_whole_split_scores_every_target_once(length, batch_size):
    model, dataset = lm(), Tokens(length)
    found = score(model, dataset, batch_size=batch_size)
    nats, text_bytes = naive(model, dataset, length - 1)
    assert found.tokens == length - 1
    assert found.bytes == text_bytes
    assert found.context_length == T
    assert found.loss == pytest.approx(nats / found.tokens, rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(nats / found.tokens), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / text_bytes, rel=1e-6)


@pytest.mark.parametrize(
    ("max_tokens", "scored"), [(T, T), (2 * T - 1, T), (5 * T, 5 * T), (10**9, 12 * T)]
)
def test_a_prefix_is_the_first_full_windows(max_tokens, scored):
    model, dataset = lm(), Tokens(12 * T + 4)
    found = score(model, dataset, max_tokens=max_tokens)
    assert found.tokens == scored
    assert found.loss == pytest.approx(naive(model, dataset, scored)[0] / scored, rel=1e-6)


def test_a_shorter_context_is_honoured():
    found = score(lm(), Tokens(50), context_length=4)
    assert (found.tokens, found.context_length) == (49, 4)


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_model_as_it_was(training):
    model = lm().train(training)
    score(model, Tokens(50))
    assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())


class Constant(nn.Module):
    """Scores that do not depend on the input."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, token_ids):
        return self.logits.expand(*token_ids.shape, -1)


def test_a_huge_loss_has_a_perplexity_that_json_can_write():
    logits = [0.0] * V
    logits[0] = 1e6
    found = score(Constant(logits), Tokens(50))
    assert math.isfinite(found.loss)
    assert found.perplexity == sys.float_info.max


def test_nan_stays_nan():
    found = score(Constant([math.nan] * V), Tokens(50))
    assert math.isnan(found.loss)
    assert math.isnan(found.perplexity)
    assert math.isnan(found.bits_per_byte)


def test_refuses_a_split_shorter_than_a_window():
    with pytest.raises(PreflightError, match=r"has 8 tokens .* context_length=8 needs 9; use more"):
        score(lm(), Tokens(T))


def test_refuses_a_prefix_shorter_than_a_window():
    with pytest.raises(UsageError, match=r"max_tokens=7 is less than one window .*=8; raise it"):
        score(lm(), Tokens(50), max_tokens=T - 1)


def _rank(rank, world, address, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    found = score(lm(), Tokens(101), batch_size=2)
    np.save(f"{folder}/{rank}.npy", [found.loss, found.bits_per_byte, found.tokens, found.bytes])
    dist.destroy_process_group()


def test_ranks_share_the_windows_and_agree(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # a sandbox's host name may not resolve
    mp.spawn(_rank, args=(3, f"file://{tmp_path}/meet", str(tmp_path)), nprocs=3)
    alone = score(lm(), Tokens(101), batch_size=2)
    ranks = [np.load(tmp_path / f"{rank}.npy") for rank in range(3)]
    assert np.array_equal(ranks[0], ranks[1])
    assert np.array_equal(ranks[0], ranks[2])
    assert ranks[0][0] == pytest.approx(alone.loss, rel=1e-12)
    assert ranks[0][2:].tolist() == [alone.tokens, alone.bytes]
