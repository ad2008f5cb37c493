"""`get_batch` against its meaning in the coursework."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from lmray.dataset import get_batch
from lmray.errors import PreflightError


def test_targets_follow_their_inputs() -> None:
    np.random.seed(0)  # noqa: NPY002
    inputs, targets = get_batch(np.arange(100), 32, 7, "cpu")
    assert inputs.shape == targets.shape == (32, 7)
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.is_contiguous()
    assert targets.is_contiguous()
    assert torch.equal(inputs + 1, targets)
    assert torch.equal(inputs, inputs[:, :1] + torch.arange(7))


def test_every_position_is_drawn_equally_often() -> None:
    """93 positions, the first and the last among them; chi-square bounds at p = 1e-6."""
    np.random.seed(0)  # noqa: NPY002
    counts: Counter[int] = Counter()
    for _ in range(1000):
        inputs, _targets = get_batch(np.arange(100), 93, 7, "cpu")
        counts.update(inputs[:, 0].tolist())
    assert set(counts) == set(range(93))
    chi_square = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert 40 < chi_square < 172


def test_the_global_seed_makes_it_repeatable() -> None:
    drawn = []
    for seed in (1, 1, 2):
        np.random.seed(seed)  # noqa: NPY002
        drawn.append(get_batch(np.arange(1000), 8, 16, "cpu")[0])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_mapped_array_of_short_integers_will_do(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.arange(65_436, 65_536, dtype=np.uint16))
    inputs, targets = get_batch(np.load(tmp_path / "ids.npy", mmap_mode="r"), 64, 50, "cpu")
    assert torch.equal(inputs + 1, targets)
    assert 65_436 <= int(inputs.min()) < int(targets.max()) <= 65_535


def test_the_batch_is_on_the_device() -> None:
    assert get_batch(np.arange(100), 2, 4, "meta")[0].device.type == "meta"
    with pytest.raises((RuntimeError, AssertionError)):
        get_batch(np.arange(100), 2, 4, "cuda:99")


def test_an_array_shorter_than_a_window_is_refused() -> None:
    assert get_batch(np.arange(5), 1, 4, "cpu")[1].tolist() == [[1, 2, 3, 4]]
    with pytest.raises(PreflightError, match=r"has 4 tokens and a window needs 5; use more text"):
        get_batch(np.arange(4), 1, 4, "cpu")
