"""Shares of a GPU: how many fit, what of the memory each has, and that it ends there."""

import gc
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmray.config import Execution, Model, Run, override
from lmray.dataset import open_splits
from lmray.errors import PreflightError, UsageError
from lmray.machine import GB
from lmray.runs.execute import execute
from lmray.sweeps.speed import measured
from lmray.training.gpu_share import (
    CONTEXT_BYTES,
    PARTS,
    check_share,
    keep_to_share,
    parts,
    require_room,
    room,
    trials_per_gpu,
)
from tests.small import small_run

SHARES = st.floats(1e-4, 1) | st.integers(1, 10_000).map(lambda count: 1 / count)


def on_a_gpu(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that needs a GPU of which it has all the memory again afterwards."""
    return pytest.mark.gpu(pytest.mark.usefixtures("whole_again")(test))


@given(SHARES)
def test_shares_never_take_more_than_a_gpu_and_leave_no_room_for_one_more(share: float):
    count, each = trials_per_gpu(share), Fraction(parts(share), PARTS)
    assert count * each <= 1 < (count + 1) * each
    assert each <= Fraction(share) * (1 + Fraction(1, 10**6))
    assert Fraction(share) - each < Fraction(1, PARTS)


@given(st.integers(1, 100))
def test_a_share_of_one_nth_lets_n_run_whether_it_is_rounded_or_not(count: int):
    assert trials_per_gpu(1 / count) == count
    assert trials_per_gpu(math.floor(1e4 / count) / 1e4) == count


def test_what_is_written_as_a_decimal_is_meant():
    assert [parts(k / 100) for k in range(1, 101)] == [100 * k for k in range(1, 101)]
    assert trials_per_gpu(0.34) == 2


@given(SHARES, st.integers(1 * GB, 200 * GB))
def test_the_processes_of_a_gpu_and_their_contexts_fit_its_memory(share: float, device: int):
    count = trials_per_gpu(share)
    if parts(share) < PARTS:
        assert count * (room(share, device) + CONTEXT_BYTES) <= device * (1 + 1e-9)
    else:
        assert room(share, device) == device


@given(SHARES, st.integers(1, 100 * GB), st.integers(2 * GB, 200 * GB))
def test_a_refusal_names_the_most_trials_that_fit(share: float, needed: int, device: int):
    try:
        require_room(share, needed, device)
    except PreflightError as error:
        said = str(error)
    else:
        assert parts(share) == PARTS or needed <= room(share, device)
        return
    assert needed > room(share, device)
    count = int(said.partition("at most ")[2].partition(" fit")[0])
    remedy = float(said.partition("set execution.gpu_share=")[2].partition(",")[0])
    require_room(remedy, needed, device)
    assert trials_per_gpu(remedy) == count
    with pytest.raises(PreflightError):
        require_room(1 / (count + 1), needed, device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_share_of_a_gpu_elsewhere_is_not_checked_here():
    check_share(Execution(device="cuda", gpu_share=0.5), 10**15)


def test_a_refusal_has_the_value_the_rule_and_the_remedy():
    with pytest.raises(PreflightError) as refused:
        require_room(0.25, 30 * GB, 80 * GB)
    assert str(refused.value) == (
        "a trial takes 30 GB of GPU memory and execution.gpu_share=0.25 of 80 GB has room for 18.9 "
        "beside CUDA's context; at most 2 fit: set execution.gpu_share=0.5, or lower "
        "execution.micro_batch, or say --yes and it is lowered where memory ends"
    )


def test_workers_of_one_run_do_not_share_a_gpu():
    with pytest.raises(UsageError, match=r"gpu_share=0\.5 and execution\.workers=2, which .* to 1"):
        override(Run(), {"execution.workers": 2, "execution.gpu_share": 0.5})


@pytest.mark.parametrize("share", [0, 1.5, 1e-5])
def test_what_is_no_share_is_refused(share: float):
    with pytest.raises(UsageError, match=r"execution\.gpu_share"):
        override(Run(), {"execution.gpu_share": share})


def test_a_cpu_is_not_shared():
    alone = Execution(device="cpu", gpu_share=0.01)
    keep_to_share(alone)
    check_share(alone, 10**15)


@pytest.mark.parametrize(
    ("share", "fraction"), [(1.0, 1.0), (0.25, 0.25 - CONTEXT_BYTES / (80 * GB))]
)
def test_torch_takes_the_share_of_the_device_that_cuda_is(
    share: float, fraction: float, monkeypatch: pytest.MonkeyPatch
):
    """torch's own function, but for the driver beneath it: a GPU of 80 GB that is not there."""
    device_of_80_gb = SimpleNamespace(total_memory=80 * GB)
    set_to: list[tuple[float, int]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: device_of_80_gb)
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(
        torch._C, "_cuda_setMemoryFraction", lambda *given: set_to.append(given), raising=False
    )
    keep_to_share(Execution(device="cuda", gpu_share=share))
    assert set_to == [(pytest.approx(fraction), 3)]


@pytest.fixture
def whole_again() -> Iterator[None]:
    yield
    gc.collect()
    torch.cuda.empty_cache()
    keep_to_share(Execution(device="cuda"))


def total() -> int:
    return torch.cuda.get_device_properties(0).total_memory


@on_a_gpu
def test_memory_ends_at_the_share_and_not_before():
    quarter = Execution(device="cuda", gpu_share=0.25)
    keep_to_share(quarter)
    fits = int(room(0.25, total()))
    held = torch.empty(fits - (64 << 20), dtype=torch.uint8, device="cuda")
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(128 << 20, dtype=torch.uint8, device="cuda")
    keep_to_share(Execution(device="cuda"))
    more = torch.empty(128 << 20, dtype=torch.uint8, device="cuda")
    assert held.numel() + more.numel() > fits
    with pytest.raises(PreflightError, match="nothing beside"):
        keep_to_share(Execution(device="cuda", gpu_share=1e-4))


@on_a_gpu
def test_what_a_process_has_beside_torch_is_within_what_is_set_aside(small_dataset: Path):
    """On a GPU that nobody else uses."""
    execute_on_gpu = override(small_run(small_dataset), {"execution.device": "cuda"})
    assert measured(execute_on_gpu, small_dataset).gpu_bytes > 0
    free, device = torch.cuda.mem_get_info(0)
    assert device - free - torch.cuda.memory_reserved(0) <= CONTEXT_BYTES


@on_a_gpu
def test_a_batch_too_large_for_the_share_is_computed_in_parts(small_dataset: Path, tmp_path: Path):
    model = Model(vocab_size=300, context_length=128, num_layers=4, d_model=256, num_heads=4)
    run = override(
        small_run(small_dataset, model=model),
        {
            "data.batch_size": 1024,
            "budget.tokens": 3 * 1024 * 128,
            "evaluation.interval_tokens": 3 * 1024 * 128,
            "execution.device": "cuda",
        },
    )
    took = measured(run, small_dataset).gpu_bytes
    share = (CONTEXT_BYTES + 0.6 * took) / total()
    shared = override(run, {"execution.gpu_share": share})
    with pytest.raises(PreflightError, match="at most"):
        check_share(shared.execution, took)
    directory = execute(shared, open_splits(small_dataset), tmp_path, report=lambda record: None)
    assert directory.status == "done"
    assert max(r["micro_batch"] for r in directory.records("train")) < 1024
    assert all(r["peak_memory_bytes"] <= room(share, total()) for r in directory.records("train"))
