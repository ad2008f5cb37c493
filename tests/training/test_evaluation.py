"""Validation against a naive loop over windows."""

import copy
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
from lmray.model import TransformerLM
from lmray.training.accumulation import Room
from lmray.training.evaluation import evaluate, intervals
from tests.devices import DEVICES

T, V = 8, 32


class Tokens:
    """A split in memory."""

    def __init__(self, length):
        self.ids = np.random.default_rng(0).integers(V, size=length)
        self.token_bytes = np.arange(V) % 5 + 1
        self.document_ends = (np.flatnonzero(self.ids < 3) + 1).astype(np.uint64)

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
    return evaluate(model, dataset, **{**settings, "room": Room("auto"), **changes})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("length", [T + 1, T + 2, 2 * T, 2 * T + 1, 100, 101, 12 * T + 1])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_whole_split_scores_every_target_once(length, batch_size, device):
    model, dataset = lm(), Tokens(length)
    moved = copy.deepcopy(model).to(device)
    found = score(moved, dataset, batch_size=batch_size, device=device)
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


def losses_one_by_one(model, dataset, stride):
    """(position of the target, place in its window, nats) by a window for each target."""
    found = []
    for target in range(1, len(dataset)):
        window = max(0, -(-(target - T) // stride)) * stride
        ids = torch.from_numpy(dataset.read(window, target + 1))
        with torch.no_grad():
            logits = model(ids[None, :-1])[0, -1].double()
        nats = functional.cross_entropy(logits, ids[-1]).item()
        found.append((target, target - window - 1, nats))
    return found


@pytest.mark.parametrize(("stride", "batch_size"), [(T, 4), (5, 1), (5, 4), (1, 3)])
def test_losses_by_position_and_by_document_are_those_of_single_targets(stride, batch_size):
    model, dataset = lm(), Tokens(46)
    found = score(model, dataset, stride=stride, batch_size=batch_size)
    single = losses_one_by_one(model, dataset, stride)
    assert found.tokens == 45
    assert found.stride == stride
    assert found.loss == pytest.approx(np.mean([nats for *_, nats in single]), rel=1e-6)
    for place in range(T):
        there = [nats for _, at, nats in single if at == place]
        assert found.tokens_by_position[place] == len(there)
        assert found.loss_by_position[place] == pytest.approx(np.mean(there), rel=1e-5)
    begin, documents = 0, []
    for end in [*dataset.document_ends.tolist()[:-1], len(dataset)]:
        nats = [nats for target, _, nats in single if begin <= target < end]
        size = sum(dataset.token_bytes[i] for i in dataset.ids[max(1, begin) : end])
        if nats:
            documents.append((sum(nats), len(nats), size))
        begin = end
    assert len(documents) > 3
    assert np.allclose(found.by_document.T, documents, rtol=1e-5)


def test_disjoint_windows_are_a_stride_of_the_context():
    model, dataset = lm(), Tokens(101)
    disjoint, strided = score(model, dataset), score(model, dataset, stride=T)
    assert (disjoint.loss, disjoint.stride) == (strided.loss, strided.stride)


def test_a_prefix_counts_only_documents_it_reads():
    dataset = Tokens(12 * T)
    dataset.document_ends = np.array([3, T + 1, 5 * T, 12 * T], dtype=np.uint64)
    found = score(lm(), dataset, max_tokens=2 * T)
    assert found.by_document[1].tolist() == [2, T - 2, T]
    assert found.tokens_by_position.tolist() == [2] * T


@pytest.mark.parametrize("ends", [[], [50]], ids=str)
def test_a_text_without_borders_is_one_document_and_has_no_interval(ends):
    dataset = Tokens(50)
    dataset.document_ends = np.array(ends, dtype=np.uint64)
    found = score(lm(), dataset)
    assert found.by_document[1].tolist() == [49]
    assert intervals(found) == {"documents": 1} | dict.fromkeys(
        ("loss_low", "loss_high", "bits_per_byte_low", "bits_per_byte_high")
    )


def test_intervals_are_around_their_means():
    found = score(lm(), Tokens(600))
    facts = intervals(found)
    assert facts["loss_low"] < found.loss < facts["loss_high"]
    assert facts["bits_per_byte_low"] < found.bits_per_byte < facts["bits_per_byte_high"]
    assert facts["documents"] == found.by_document.shape[1]


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_model_as_it_was(training):
    model = lm().train(training)
    score(model, Tokens(50))
    assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())


class Crowded(nn.Module):
    """A model with room for `most` windows at once."""

    def __init__(self, model, most):
        super().__init__()
        self.model, self.most = model, most
        self.tried = []

    def forward(self, token_ids):
        self.tried.append(len(token_ids))
        if len(token_ids) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.model(token_ids)


def test_windows_that_memory_has_no_room_for_are_scored_in_parts():
    model, dataset = lm(), Tokens(20 * T + 1)
    nats, _ = naive(model, dataset, 20 * T)
    crowded = Crowded(model, most=2)
    found = score(crowded, dataset, batch_size=8)
    assert found.loss == pytest.approx(nats / (20 * T), rel=1e-6)
    assert found.tokens == 20 * T
    assert crowded.tried == [8, 4, *[2] * 10], "what did not fit is not tried again"
    with pytest.raises(torch.OutOfMemoryError):
        score(Crowded(model, most=0), dataset)


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
    assert np.isnan(found.loss_by_position).all()
    assert intervals(found)["loss_low"] is None


def _rank(rank, world, address, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    found = score(lm(), Tokens(101), batch_size=2)
    totals = [found.loss, found.bits_per_byte, found.tokens, found.bytes]
    parts = (found.loss_by_position, found.by_document.flatten())
    np.save(f"{folder}/{rank}.npy", np.concatenate([totals, *parts]))
    dist.destroy_process_group()


def test_ranks_share_the_windows_and_agree(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # a sandbox's host name may not resolve
    mp.spawn(_rank, args=(3, f"file://{tmp_path}/meet", str(tmp_path)), nprocs=3)
    alone = score(lm(), Tokens(101), batch_size=2)
    ranks = [np.load(tmp_path / f"{rank}.npy") for rank in range(3)]
    assert np.array_equal(ranks[0], ranks[1])
    assert np.array_equal(ranks[0], ranks[2])
    assert ranks[0][0] == pytest.approx(alone.loss, rel=1e-12)
    assert ranks[0][2:4].tolist() == [alone.tokens, alone.bytes]
    parts = np.concatenate([alone.loss_by_position, alone.by_document.flatten()])
    assert np.allclose(ranks[0][4:], parts, rtol=1e-12)


@pytest.mark.parametrize("stride", ["disjoint", 3])
def test_where_memory_ends_windows_are_scored_in_parts(stride):
    model, dataset = lm(), Tokens(101)
    whole = score(model, dataset, batch_size=8, stride=stride)
    sizes = []

    def crowd(module, given):
        sizes.append(len(given[0]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(crowd)
    room = Room("auto")
    parts = score(model, dataset, batch_size=8, stride=stride, room=room)
    assert [size for size in sizes if size > 3] == [8, 4], "what does not fit is tried once"
    assert room.at_once(8) == 2
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    np.testing.assert_array_equal(parts.by_document[1:], whole.by_document[1:])
    np.testing.assert_allclose(parts.by_document[0], whole.by_document[0], rtol=1e-5)
    np.testing.assert_allclose(parts.loss_by_position, whole.loss_by_position, rtol=1e-5)
