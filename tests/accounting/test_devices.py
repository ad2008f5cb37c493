"""Peaks by the names that torch gives devices, time and money."""

import pytest

from lmray.accounting import estimate, mfu, peak_flops
from lmray.errors import UsageError


@pytest.mark.parametrize(
    ("name", "dtype", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5),
        ("NVIDIA H100 80GB HBM3", "bf16", 989),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H100 NVL", "bf16", 835),
        ("NVIDIA H200", "bf16", 989),
        ("NVIDIA H200 NVL", "bf16", 835),
        ("NVIDIA GH200 480GB", "bf16", 989),
        ("NVIDIA B200", "bf16", 2250),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("NVIDIA GeForce RTX 3090", "bf16", 71),
        ("NVIDIA A10", "bf16", 125),
        ("Tesla V100-SXM2-16GB", "fp32", 15.7),
        ("Tesla V100-PCIE-32GB", "fp32", 14),
        ("Tesla T4", "fp32", 8.1),
        ("h100", "tf32", 494.5),
    ],
)
def test_a_known_device_has_a_peak(name, dtype, teraflops):
    assert peak_flops(name, dtype) == teraflops * 1e12
    assert mfu(teraflops * 4e11, name, dtype) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("Tesla V100-SXM2-16GB", "bf16"),
        ("NVIDIA A10G", "bf16"),
        ("NVIDIA A1000", "fp32"),
        ("NVIDIA GB200", "bf16"),
        ("NVIDIA L40", "bf16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16"),
        ("NVIDIA GeForce RTX 4090 D", "bf16"),
        ("NVIDIA GeForce RTX 3090 Ti", "bf16"),
        ("Tesla V100-FHHL-16GB", "fp32"),
        ("Tesla V100S-PCIE-32GB", "fp32"),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "bf16"),
        ("AMD Instinct MI300X", "bf16"),
        ("", "fp32"),
        ("cpu", "fp32"),
    ],
)
def test_an_unknown_one_has_none_and_no_guess(name, dtype):
    assert peak_flops(name, dtype) is None
    assert mfu(1e12, name, dtype) is None


def test_time_and_cost():
    found = estimate(312e12 * 0.5 * 7200, device="A100", dtype="bf16", mfu=0.5, price_per_hour=3)
    assert (found.seconds, found.cost) == pytest.approx((7200, 6))
    assert found.days == pytest.approx(1 / 12)


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_refuses_an_impossible_utilisation(share):
    with pytest.raises(UsageError, match=r"mfu=.* is not in \(0, 1\]; 0.4 is usual"):
        estimate(1, device="A100", dtype="bf16", mfu=share)


def test_refuses_a_device_without_a_peak():
    with pytest.raises(UsageError, match=r"no peak is known for device='TPU' .* the devices are"):
        estimate(1, device="TPU", dtype="bf16", mfu=0.4)
