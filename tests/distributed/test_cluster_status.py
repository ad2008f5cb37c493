"""`lmray cluster status` of a Ray that runs: what is used, and what waits for what."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from lmray.distributed.cluster_status import ClusterStatus, Waiting, cluster_status
from lmray.distributed.jobs import Jobs, connect

LARGE = "no node is large enough: it waits until one joins"
BUSY = "all nodes that are large enough are busy"

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def jobs(local_ray: None) -> Jobs:
    return connect(ray.worker.global_worker.node.address_info["webui_url"])


def status_once(jobs: Jobs, condition: Callable[[ClusterStatus], bool]) -> ClusterStatus:
    until = time.monotonic() + 60
    while not condition(found := cluster_status(jobs)):
        assert time.monotonic() < until, found
        time.sleep(0.5)
    return found


@contextmanager
def busy(**resources: float) -> Iterator[None]:
    """A task that holds resources for the block."""

    @ray.remote
    def hold() -> None:
        time.sleep(600)

    task = hold.options(**resources).remote()
    try:
        yield
    finally:
        ray.cancel(task, force=True)


def test_what_is_used_and_what_waits_for_what(jobs: Jobs):
    cores = ray.cluster_resources()["CPU"]

    @ray.remote(num_cpus=1)
    def next_one() -> None: ...

    @ray.remote(num_cpus=1000)
    class Impossible: ...

    @ray.remote(num_cpus=1, resources={"microscope": 1})
    def elsewhere() -> None: ...

    whole = {"num_cpus": cores, "memory": 100 << 20}
    with busy(**whole):
        status_once(jobs, lambda found: found.nodes[0].used["CPU"] == cores)
        tasks = [next_one.remote(), next_one.remote(), elsewhere.remote()]
        actor = Impossible.remote()
        groups = [placement_group([{"CPU": 1}], name="two"), placement_group([{"CPU": 999}])]
        found = status_once(jobs, lambda found: len(found.waiting) == 5)
        ray.cancel(tasks[2])
        ray.kill(actor)
        remove_placement_group(groups[1])
    [node] = found.nodes
    assert (node.head, node.alive) == (True, True)
    assert node.used == {"CPU": cores, "GPU": 0, "memory": 100 << 20}
    assert node.total["CPU"] == cores
    assert found.waiting == [
        Waiting("Impossible", 1, {"CPU": 1000}, LARGE),
        Waiting("elsewhere", 1, {"CPU": 1, "microscope": 1}, LARGE),
        Waiting("next_one", 2, {"CPU": 1}, BUSY),
        Waiting("placement group", 1, {"CPU": 999}, LARGE),
        Waiting("placement group two", 1, {"CPU": 1}, BUSY),
    ]
    # What waited for a busy node runs once that is free; a group holds its place, used or not.
    ray.get([*tasks[:2], groups[0].ready()])
    found = status_once(jobs, lambda found: found.nodes[0].used["CPU"] == 1)
    assert found.waiting == []
    remove_placement_group(groups[0])
    status_once(jobs, lambda found: found.nodes[0].used["CPU"] == 0)


OF_A_LOST_NODE = """
import json, socket, time
from dataclasses import asdict
import lmray.distributed
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from lmray.distributed.cluster_status import cluster_status
from lmray.distributed.jobs import connect

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": port}
cluster = Cluster(initialize_head=True, head_node_args=head)
node = cluster.add_node(num_cpus=2)
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1, max_restarts=-1)
class Keeper:
    def answer(self):
        return 1

keeper = Keeper.remote()
ray.get(keeper.answer.remote())
group = placement_group([{"CPU": 1}], name="trial")
ray.get(group.ready())
jobs = connect(cluster.head_node.address_info["webui_url"])
until = time.monotonic() + 30
while True:
    used = sum(each.used["CPU"] for each in cluster_status(jobs).nodes)
    if used == 2 or time.monotonic() > until:
        break
    time.sleep(1)
cluster.remove_node(node, allow_graceful=False)
until = time.monotonic() + 90
while len((found := cluster_status(jobs)).waiting) < 2 and time.monotonic() < until:
    time.sleep(1)
print(json.dumps([used, asdict(found)["waiting"]]))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.parametrize("version", ["0", "1"], ids=["autoscaler 1", "autoscaler 2"])
def test_what_a_lost_node_held_waits_for_another_one(version: str):
    done = subprocess.run(
        [sys.executable, "-c", OF_A_LOST_NODE],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"RAY_enable_autoscaler_v2": version, "RAY_AUTH_TOKEN": "a-token"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    used, waiting = json.loads(done.stdout.splitlines()[-1])
    assert used == 2
    assert waiting == [
        {"name": "Keeper", "count": 1, "demand": {"CPU": 1}, "reason": LARGE},
        {"name": "placement group trial", "count": 1, "demand": {"CPU": 1}, "reason": LARGE},
    ]
