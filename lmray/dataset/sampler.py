"""Which tokens a step trains on: a pure function of (dataset, seed, step), without any state."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmray.dataset.tokens import TokenDataset
from lmray.errors import PreflightError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class BatchSampler:
    """Windows of context_length + 1 tokens, each drawn uniformly and independently."""

    dataset: TokenDataset
    batch_size: int
    context_length: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.dataset) <= self.context_length:
            raise PreflightError(
                f"the training split has {len(self.dataset)} tokens and a window needs "
                f"{self.context_length + 1}; use more text or a smaller model.context_length"
            )

    def starts(self, step: int) -> np.ndarray:
        """First positions of the global batch of `step`, shape (batch_size,), int64."""
        # NumPy promises the raw output of a bit generator for good, that of its distributions not.
        # The modulo prefers no position by more than len(dataset) / 2**64, about one in a billion
        # for the largest corpora.
        raw = np.random.Philox(key=self.seed, counter=[0, 0, 0, step]).random_raw(self.batch_size)
        return (raw % np.uint64(len(self.dataset) - self.context_length)).astype(np.int64)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of one rank's part of the step, (batch_size / world, context_length).

        The parts of all ranks, in order, are the batch of a single one.
        """
        windows = self.windows(step, rank, world)
        return windows[:, :-1], windows[:, 1:]

    def windows(self, step: int, rank: int = 0, world: int = 1) -> np.ndarray:
        """The same as whole windows, (batch_size / world, context_length + 1)."""
        starts = np.split(self.starts(step), world)[rank]
        return np.stack([self.dataset.read(s, s + self.context_length + 1) for s in starts])


def get_batch(
    dataset: np.ndarray, batch_size: int, context_length: int, device: str
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Random windows of a 1-D array as LongTensors (batch_size, context_length) on `device`.

    The coursework's function; as there, `np.random.seed` makes it repeatable.
    """
    import torch  # the room of tokens does not import torch: workers that encode have no use for it

    if len(dataset) <= context_length:
        raise PreflightError(
            f"the dataset has {len(dataset)} tokens and a window needs {context_length + 1}; "
            f"use more text or a smaller context_length"
        )
    starts = np.random.randint(0, len(dataset) - context_length, size=batch_size)  # noqa: NPY002
    windows = np.stack([dataset[s : s + context_length + 1] for s in starts]).astype(np.int64)
    tensor = torch.from_numpy(windows).to(device)
    return tensor[:, :-1].contiguous(), tensor[:, 1:].contiguous()
