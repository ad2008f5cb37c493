"""Every way to a device brings the sampler's batches."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from lmray.dataset import BatchSampler, open_splits
from lmray.training import batches as module
from lmray.training.batches import PrefetchedBatches, ResidentBatches, batches
from tests.devices import DEVICES

WAYS = [ResidentBatches, PrefetchedBatches, batches]


@pytest.fixture
def sampler(small_dataset: Path) -> BatchSampler:
    return BatchSampler(open_splits(small_dataset).train, 6, 16, seed=3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("rank", "world"), [(0, 1), (0, 2), (2, 3)])
def test_batches_are_those_of_the_sampler_in_any_order(way, device, rank, world, sampler):
    batch = way(lambda step: sampler, torch.device(device), rank, world)
    for step in (0, 1, 2, 7, 8, 3, 3):
        for mine, its in zip(batch(step), sampler.batch(step, rank, world), strict=True):
            assert (mine.dtype, mine.device.type) == (torch.int64, device)
            np.testing.assert_array_equal(mine.cpu().numpy(), its)


class Ids:
    """A split whose ids reach the end of their type."""

    def __init__(self, dtype: str) -> None:
        self.manifest = type("Manifest", (), {"dtype": dtype})
        self._ids = np.arange(np.iinfo(dtype).max - 99, np.iinfo(dtype).max + 1, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._ids[start:stop]


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_ids_that_fill_their_type_survive_on_the_device(dtype: str):
    sampler = BatchSampler(Ids(dtype), 4, 8, seed=0)  # pyrefly: ignore
    resident = ResidentBatches(lambda step: sampler, torch.device("cpu"), 0, 1)
    for mine, its in zip(resident(5), sampler.batch(5), strict=True):
        np.testing.assert_array_equal(mine.numpy(), its)
    assert resident(5)[1].max() > 2**15


def test_the_next_batch_is_read_while_this_one_is_used(sampler, monkeypatch):
    read = []
    third = threading.Event()
    true = BatchSampler.windows

    def noted(self, step, rank=0, world=1):
        read.append((step, threading.current_thread().name))
        if step == 2:
            third.set()
        return true(self, step, rank, world)

    monkeypatch.setattr(BatchSampler, "windows", noted)
    prefetched = PrefetchedBatches(lambda step: sampler, torch.device("cpu"), 0, 1)
    prefetched(0)
    prefetched(1)
    assert third.wait(10), "step 2 is read though nobody has asked for it"
    assert [step for step, _ in read] == [0, 1, 2]
    assert all(name.startswith("lmray-batches") for _, name in read)


def test_an_error_of_the_reading_thread_reaches_who_asks(sampler, monkeypatch):
    def broken(self, step, rank=0, world=1):
        raise OSError(f"step {step} is unreadable")

    prefetched = PrefetchedBatches(lambda step: sampler, torch.device("cpu"), 0, 1)
    prefetched(0)
    monkeypatch.setattr(BatchSampler, "windows", broken)
    with pytest.raises(OSError, match="step 5 is unreadable"):
        prefetched(5)


def test_windows_cross_over_once_and_without_gaps(sampler, monkeypatch):
    """A GPU copies by itself what lies in one piece."""
    crossed = []
    monkeypatch.setattr(module, "_to", lambda tensor, device: crossed.append(tensor) or tensor)
    inputs, targets = PrefetchedBatches(lambda step: sampler, torch.device("cpu"), 0, 1)(0)
    assert [(windows.shape, windows.is_contiguous()) for windows in crossed] == [((6, 17), True)]
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
