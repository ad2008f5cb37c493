"""Fixtures that more than one room's tests use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports them: transformers would look for newer files on the network, and torch
# would spin for a second thread at products that take microseconds (half of all tests' time); where
# a test asks for two on a busy machine, it would spin 8 ms at each.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

import lmray.distributed  # noqa: F401 - sets Ray's environment before a test module imports Ray
from tests.small import write_dataset

# Shared cores stall: a deadline would fail tests for the machine's sake.
settings.register_profile("lmray", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "lmray"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real text that LMRAY_TEST_DATA names; without it the test is skipped."""
    if "LMRAY_TEST_DATA" not in os.environ:
        pytest.skip("LMRAY_TEST_DATA does not name a folder of real text")
    return Path(os.environ["LMRAY_TEST_DATA"]).resolve()


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The token dataset of tests/small.py; read only."""
    return write_dataset(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One local Ray for the tests that need it, as lmray starts it."""
    from lmray.distributed.cluster import ray_session

    with ray_session(dashboard=True):
        yield
