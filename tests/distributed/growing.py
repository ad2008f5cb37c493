"""A Ray cluster on this machine that grows: Ray's own autoscaler over its fake nodes of raylets.

`ray.cluster_utils.AutoscalingCluster` is the same, but begins and ends with `ray stop`, which takes
every other Ray of the machine along, and reads an example that Ray 2.60's wheel does not have.
"""

import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.distributed.job_cluster import free_ports, kill_marked

MOST = 4
"""More than are asked for: a trial that ends may be waited for a moment longer."""

_HEAD = "ray.head.default"


@contextmanager
def growing(workers: list[dict[str, int]], environment: dict[str, str]) -> Iterator[str]:
    """A head with no CPU, and up to MOST workers of each of these resources, none yet.

    Yields its address. All its processes are gone afterwards.
    """
    mark = f"LMRAY_TEST_MARK={uuid.uuid4().hex}"
    environment = {
        **environment,
        **dict([mark.split("=")]),
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "0",
    }
    port, client_port = free_ports(2)
    address = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="lmray-") as scratch:
        config = Path(scratch) / "cluster.json"
        config.write_text(json.dumps(_config(workers, address)))
        command = [
            *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
            *("--num-cpus=0", "--num-gpus=0", f"--temp-dir={scratch}", "--include-dashboard=false"),
            *("--node-ip-address=127.0.0.1", f"--port={port}"),
            *(f"--ray-client-server-port={client_port}", "--dashboard-agent-listen-port=0"),
            *("--object-store-memory=100000000", f"--autoscaling-config={config}"),
        ]
        log = Path(scratch) / "head.log"
        with log.open("wb") as out:
            head = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
            try:
                while "Ray runtime started" not in log.read_text():
                    assert head.poll() is None, log.read_text()
                    time.sleep(0.2)
                yield address
            finally:
                kill_marked(mark)
                head.wait()


def _config(workers: list[dict[str, int]], address: str) -> dict[str, Any]:
    kinds = {_HEAD: {"resources": {}, "node_config": {}, "max_workers": 0}}
    for number, resources in enumerate(workers):
        limits = {"min_workers": 0, "max_workers": MOST}
        kinds[f"worker-{number}"] = {"resources": resources, "node_config": {}, **limits}
    provider = {
        "type": "fake_multinode",
        "gcs_address": address,
        "head_node_id": FAKE_HEAD_NODE_ID,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    commands = (
        *("initialization_commands", "setup_commands", "head_setup_commands"),
        *("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
    )
    return {
        "cluster_name": "growing",
        "max_workers": MOST * len(workers),
        "idle_timeout_minutes": 1,
        "upscaling_speed": 1.0,
        "docker": {},
        "provider": provider,
        "auth": {},
        "available_node_types": kinds,
        "head_node_type": _HEAD,
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{name: [] for name in commands},
    }
