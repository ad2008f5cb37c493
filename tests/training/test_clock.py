"""Rates by hand, on a clock that is told the time."""

import pytest

from lmray.training import clock
from lmray.training.clock import Clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds."""
    time = [100.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: time[0])
    return time


def test_rates_of_two_h100s_by_hand(now: list[float]):
    ran = Clock(90.0, device="NVIDIA H100 80GB HBM3", dtype="bf16", workers=2)
    for _ in range(10):
        ran.count(32_768, 10**14)
    now[0] = 101.0
    with ran.paused_rate() as pause:
        now[0] = 107.0
    now[0] = 108.0
    # 1e15 operations in the 2 seconds beside the pause; each GPU can do 989e12 in one.
    assert ran.rates() == {
        "tokens_per_s": 163_840.0,
        "tflop_per_s": 500.0,
        "mfu": pytest.approx(500 / (2 * 989)),
    }
    assert (pause.seconds, ran.seconds()) == (6.0, 18.0)
    ran.count(1_000, 10**12)
    now[0] = 108.5
    assert ran.rates()["tokens_per_s"] == 2_000.0


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        ("NVIDIA A100-SXM4-40GB", "fp32", 1 / 19.5),
        ("NVIDIA A100-SXM4-40GB", "tf32", 1 / 156),
        ("NVIDIA L4", "bf16", 1 / 121),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16", None),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("AMD Instinct MI300X", "bf16", None),
        ("cpu", "fp32", None),
    ],
)
def test_mfu_is_of_the_devices_peak_at_that_precision_or_unknown(device, dtype, expected, now):
    ran = Clock(now[0], device=device, dtype=dtype, workers=1)
    ran.count(1, 10**12)
    now[0] += 1.0
    found = ran.rates()
    assert found["tflop_per_s"] == 1.0
    assert found["mfu"] == (None if expected is None else pytest.approx(expected))
