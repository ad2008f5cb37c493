from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmray.dataset import BatchSampler, TokenDataset, open_split
from lmray.errors import PreflightError

CONTEXT = 7


@pytest.fixture(scope="module")
def dataset(built: Path) -> TokenDataset:
    return open_split(built / "train")


def sampler(
    dataset: TokenDataset, *, batch_size: int = 12, context_length: int = CONTEXT, seed: int = 0
) -> BatchSampler:
    return BatchSampler(dataset, batch_size, context_length, seed)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_the_parts_of_the_ranks_are_the_batch_of_one(
    dataset: TokenDataset, step: int, seed: int, world: int
) -> None:
    whole = sampler(dataset, seed=seed).batch(step)
    parts = [sampler(dataset, seed=seed).batch(step, rank, world) for rank in range(world)]
    for place in range(2):
        together = np.concatenate([part[place] for part in parts])
        assert together.tolist() == whole[place].tolist()
        assert together.shape == (12, CONTEXT)
        assert together.dtype == np.int64


def test_a_batch_depends_on_its_step_alone(dataset: TokenDataset) -> None:
    asked = sampler(dataset)
    forwards = [asked.batch(step)[0].tolist() for step in range(20)]
    backwards = [sampler(dataset).batch(step)[0].tolist() for step in reversed(range(20))]
    assert forwards == backwards[::-1]


def test_batches_differ_between_steps_and_between_seeds(dataset: TokenDataset) -> None:
    starts = {
        tuple(sampler(dataset, seed=seed).starts(step)) for seed in range(30) for step in range(30)
    }
    assert len(starts) == 900


def test_targets_are_the_next_tokens_of_the_split(dataset: TokenDataset) -> None:
    asked = sampler(dataset)
    inputs, targets = asked.batch(5)
    for start, first, second in zip(asked.starts(5), inputs, targets, strict=True):
        assert first.tolist() == dataset.read(start, start + CONTEXT).tolist()
        assert second.tolist() == dataset.read(start + 1, start + CONTEXT + 1).tolist()


def test_the_stream_is_this_one() -> None:
    """It may change only together with NUMERICS, on no machine and with no version of NumPy.

    The numbers are those of Philox4x64-10 as published (Salmon et al. 2011), key (42, 0), counter
    (1, 0, 0, step), modulo the number of positions.
    """

    class Long:
        def __len__(self) -> int:
            return 1_000_000_007

    asked = BatchSampler(Long(), 4, 256, seed=42)  # pyrefly: ignore
    assert asked.starts(0).tolist() == [687662816, 842928197, 291955895, 940930819]
    assert asked.starts(123_456).tolist() == [755457715, 108759762, 330505966, 536401121]


def test_every_position_is_drawn_equally_often(dataset: TokenDataset) -> None:
    """Chi-square over all positions, the first and the last among them; bounds at p = 1e-6."""
    context_length = len(dataset) - 50
    asked = sampler(dataset, batch_size=1000, context_length=context_length)
    counts = Counter(int(start) for step in range(50) for start in asked.starts(step))
    assert set(counts) == set(range(50))
    chi_square = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert 14 < chi_square < 111


def test_the_whole_split_may_be_one_window(dataset: TokenDataset) -> None:
    inputs, targets = sampler(dataset, context_length=len(dataset) - 1).batch(0)
    assert inputs[0].tolist() == dataset.read(0, len(dataset) - 1).tolist()
    assert targets[0, -1] == dataset.read(len(dataset) - 1, len(dataset))


def test_a_split_shorter_than_a_window_is_refused(dataset: TokenDataset) -> None:
    n = len(dataset)
    message = rf"training split has {n} tokens and a window needs {n + 1}; use more text or"
    with pytest.raises(PreflightError, match=message):
        sampler(dataset, context_length=n)
