"""The devices that one test is run on alike, and the memory that it takes there."""

from collections.abc import Callable

import pytest
import torch

DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))


def largest_or_peak(step: Callable[[], None], device: str) -> int:
    """Bytes: the largest tensor that a CPU made, or all that a GPU had at once."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        step()
    return max(event.self_cpu_memory_usage for event in profile.events())
