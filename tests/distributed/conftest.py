"""Fixtures of the tests that need a cluster of several hosts."""

from collections.abc import Iterator

import pytest

from tests.distributed.local_cluster import LocalCluster, made


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three hosts that `ray up` made; nothing is left of them after the module's tests."""
    with made(tmp_path_factory.mktemp("cluster") / "c", "up") as cluster:
        yield cluster
