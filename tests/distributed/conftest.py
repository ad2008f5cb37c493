"""Fixtures of the tests that need a cluster of several hosts."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.distributed.local_cluster import LocalCluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three hosts that `ray up` made; nothing is left of them after the module's tests."""
    cluster = LocalCluster(tmp_path_factory.mktemp("cluster") / "c")
    cluster.script("down")
    try:
        cluster.script("up")
        yield cluster
    finally:
        assert "nothing of the cluster is left" in cluster.script("down")
        links = subprocess.run(
            ["ip", "-o", "link"], capture_output=True, text=True, check=True
        ).stdout
        assert "lmrayt" not in links
