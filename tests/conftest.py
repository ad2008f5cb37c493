"""Fixtures that more than one room's tests use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real text that LMRAY_TEST_DATA names; without it the test is skipped."""
    if "LMRAY_TEST_DATA" not in os.environ:
        pytest.skip("LMRAY_TEST_DATA does not name a folder of real text")
    return Path(os.environ["LMRAY_TEST_DATA"]).resolve()
