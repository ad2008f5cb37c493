"""Whether a folder is the same on every node: a file written here, looked for by a task on each.

A run that finds its root missing on another node fails late, or leaves its results there.
"""

import secrets
import time
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lmray import remote
from lmray.errors import LmrayError, PreflightError
from lmray.storage import write_bytes

_PATIENCE_SECONDS = 5.0
"""A network file system may show another node's new file a moment later."""

_ANSWER_SECONDS = 120.0

_LOST = (
    ray.exceptions.NodeDiedError,
    ray.exceptions.TaskUnschedulableError,
    ray.exceptions.WorkerCrashedError,
)
"""A node that goes away while it is asked has no say."""


def require_shared(root: Path) -> None:
    """Refuses a folder that some node of the Ray session does not share with this process.

    Raises PreflightError, with the ways out, if a node does not see a file written here or does not
    answer.
    """
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    # On a machine of one's own the driver's disk is every task's disk.
    if nodes.keys() == {ray.get_runtime_context().get_node_id()}:
        return
    # Hidden files of a cache are not for others.
    dot = "" if remote.url(root) else "."
    probe = root.resolve() / f"{dot}lmray-probe-{secrets.token_hex(8)}"
    text = secrets.token_bytes(16)
    write_bytes(probe, text)
    remote.publish(probe)
    try:
        asked = {
            _sees.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
            ).remote(str(probe), text): address
            for node, address in nodes.items()
        }
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS)
        blind = [asked[task] for task in answered if not _saw(task)]
    finally:
        probe.unlink(missing_ok=True)
        remote.remove(probe)
    if blind:
        raise PreflightError(
            f"{root.resolve()} is not shared: {_named(blind)} (of {len(nodes)} nodes) did not see "
            f"a file the driver wrote to it; (1) give a --root that is mounted on all nodes, or a "
            f"URL (s3://, gs://) that all may read and write, (2) mount that path on them (NFS, "
            f"EFS, Lustre ...), or (3) leave out --address and RAY_ADDRESS to use this machine "
            f"alone"
        )
    if silent:
        raise PreflightError(
            f"{_named([asked[task] for task in silent])} did not say within {_ANSWER_SECONDS:g} s "
            f"whether --root {root} is shared; `lmray cluster status` says what they wait for"
        )


def _named(addresses: list[str]) -> str:
    shown = ", ".join(sorted(addresses)[:3])
    return shown if len(addresses) <= 3 else f"{shown} and {len(addresses) - 3} more"


def _saw(task: ray.ObjectRef) -> bool:
    try:
        return ray.get(task)
    except _LOST:
        return True


@ray.remote(num_cpus=0, max_retries=0)
def _sees(path: str, text: bytes) -> bool:
    end = time.monotonic() + _PATIENCE_SECONDS
    place = remote.cached(path)
    while True:
        try:
            remote.refresh(place)
            if place.read_bytes() == text:
                return True
        except (OSError, LmrayError):
            pass
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
