"""Ray with a dashboard on this machine: a head of two CPUs that starts a node with a GPU on demand.

The GPU need not exist. Ports are free ones and the token is its own: other Rays may run beside it.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ray.util import get_node_ip_address

from lmray.distributed.jobs import connect
from lmray.errors import PreflightError

ROOT = Path(__file__).parents[2]
_TYPES = {
    "ray.head.default": {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0},
    "gpu": {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "max_workers": 1},
}


class JobCluster:
    """Such a cluster, by its address and token."""

    def __init__(self, address: str, token: str) -> None:
        self.address = address
        self.token = token
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "LMRAY_"))},
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_TOKEN": token,
        }

    def submit(self, *arguments: object, cwd: Path, code: int = 0) -> str:
        """What `lmray submit --address` prints, whose exit code must be `code`."""
        words = ["submit", "--address", self.address, *map(str, arguments)]
        done = subprocess.run(
            [sys.executable, "-m", "lmray", *words],
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=250,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout


@contextmanager
def job_cluster() -> Iterator[JobCluster]:
    """Starts it, and leaves nothing of it."""
    token, mark = secrets.token_hex(32), f"LMRAY_TEST_MARK={secrets.token_hex(8)}"
    gcs, dashboard, agent = free_ports(3)
    words = {
        "--port": gcs,
        "--dashboard-port": dashboard,
        "--dashboard-host": "127.0.0.1",
        "--dashboard-agent-listen-port": agent,
        "--num-cpus": 2,
        "--num-gpus": 0,
        "--object-store-memory": 200_000_000,
    }
    # Ray's sockets want a short path.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(_autoscaling(f"{get_node_ip_address()}:{gcs}")))
        words |= {"--temp-dir": folder, "--autoscaling-config": config}
        cluster = JobCluster(f"http://127.0.0.1:{dashboard}", token)
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        process = subprocess.Popen(
            [*ray, *(f"{name}={value}" for name, value in words.items())],
            env={
                **cluster.environment,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "RAY_AUTH_MODE": "token",
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_FAKE_CLUSTER": "1",
                "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                **dict([mark.split("=")]),
            },
            stdout=(Path(folder) / "log").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _await(cluster.address, process)
            yield cluster
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):  # one of whose parts has died may hang
                process.wait(60)
            kill_marked(mark)  # also of the node that it started
            process.wait()


def _autoscaling(gcs: str) -> dict[str, Any]:
    """Ray's provider for its own tests: a node is a raylet on this machine."""
    return {
        "cluster_name": "jobs",
        "max_workers": 1,
        "idle_timeout_minutes": 1,
        "provider": {"type": "fake_multinode", "gcs_address": gcs},
        "available_node_types": _TYPES,
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{
            name: []
            for name in (
                *("cluster_synced_files", "initialization_commands"),
                *("setup_commands", "head_setup_commands", "worker_setup_commands"),
                *("head_start_ray_commands", "worker_start_ray_commands"),
            )
        },
    }


def _await(address: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 90
    while True:
        try:
            connect(address)
            return
        except PreflightError as error:
            if "no Ray dashboard answers" not in str(error):
                return  # it asks for the token
            assert process.poll() is None
            assert time.monotonic() < end
        time.sleep(0.5)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def kill_marked(mark: str) -> None:
    """Returns once none of `marked` is left, for what is dying writes on into its folder."""
    while left := marked(mark):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def marked(mark: str) -> list[int]:
    """Processes with this in their environment, NAME=value."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found
