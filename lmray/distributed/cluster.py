"""Joining a running Ray cluster, or starting a quiet local one that lives as long as its caller."""

import json
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, worker
from ray.autoscaler._private.util import format_readonly_node_type
from ray.experimental.internal_kv import _internal_kv_get

from lmray.distributed.notice import as_ctrl_c, kept, on_notice
from lmray.distributed.shared_root import shared as shared_by_all
from lmray.errors import PreflightError
from lmray.machine import available_cores
from lmray.sweeps.places import Node

_AUTOSCALER_S = 10.0
"""It has looked at the cluster by then."""

_LISTENS_S = 10.0
"""A head has been connected to by then."""


@contextmanager
def ray_session(
    address: str = "", *, dashboard: bool = False, shared: Path | None = None
) -> Iterator[bool]:
    """Connects to the cluster at `address` or $RAY_ADDRESS, else starts a local Ray for the block.

    Yields whether it has joined a cluster. A session that is already there is used and left alone.
    The local one listens on loopback only, asks every client for a token that is made for it alone,
    and sends no usage statistics. In the block SIGTERM is Ctrl-C.

    Raises PreflightError if there is no cluster at the address, or the folder `shared`, where the
    work leaves its results, is not the same on all nodes.
    """
    if ray.is_initialized():
        with _silent(), on_notice(as_ctrl_c, signal.SIGTERM):
            yield False
        return
    # Ray's own answer to the signal would stay after its end.
    with (
        kept(signal.SIGTERM),
        _silent(),
        _begun(address or os.environ.get("RAY_ADDRESS", ""), dashboard) as joined,
        on_notice(as_ctrl_c, signal.SIGTERM),
        shared_by_all(shared) if shared else nullcontext(),
    ):
        yield joined


@contextmanager
def _begun(address: str, dashboard: bool) -> Iterator[bool]:
    """A Ray session of the block's own; yields whether it is one of a cluster that was there."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        require_head(address)
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _no_cluster(address, error) from error
    else:
        # Otherwise Ray leaves a token in ~/.ray, which clusters started later trip over.
        if os.environ.get("RAY_AUTH_MODE") == "token":
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        with _on_loopback():
            cores = available_cores()
            ray.init(address="local", num_cpus=cores, include_dashboard=dashboard, **quiet)
    try:
        yield bool(address)
    finally:
        ray.shutdown()


def require_head(address: str) -> None:
    """Refuses an address at which no Ray head can be: Ray would try it for a quarter of an hour.

    What is no host and port is left to Ray, as "auto" is, and so is whatever listens and does not
    answer in plain HTTP: heads speak gRPC.

    Raises PreflightError if nothing listens there, or a web server does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return
    answer = b""
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _LISTENS_S) as head:
            with suppress(OSError):
                head.sendall(b"GET / HTTP/1.1\r\nHost: ray\r\nConnection: close\r\n\r\n")
                answer = head.recv(5)
    except (OSError, OverflowError, ValueError) as error:
        raise _no_cluster(address, error) from error
    if answer == b"HTTP/":
        raise _no_cluster(address, "what listens speaks HTTP; a dashboard? A head's port is 6379")


def _no_cluster(address: str, why: object) -> PreflightError:
    return PreflightError(
        f"no Ray cluster answers at {address} ({' '.join(str(why).split())[:200]}); "
        f"check the address and RAY_AUTH_MODE, or leave both out to use this machine"
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps what Ray says of lost processes off stdout, which is for results.

    It prints that there whatever `log_to_driver` is (2.60). Who loses by it is told by an error.
    """
    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        worker._worker_logs_enabled = True


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Lets a Ray that is started take 127.0.0.1 for its node's address, so that it listens there.

    With any other address its metrics, which ask for no token, and its gRPC listen on all
    interfaces. Ray has it so on macOS and Windows; elsewhere it resolves 127.0.0.1, even if asked
    for by name, to what other machines can reach (2.60).
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def nodes() -> list[Node]:
    """The nodes of the session that live at this moment, by what Ray gives out of each."""
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            counts = (has.get(kind, 0) for kind in ("CPU", "GPU", "memory"))
            found.append(Node(node["NodeManagerAddress"], *counts))
    return found


def grows() -> bool:
    """Whether the session's cluster may get nodes because something waits for them.

    Ray's autoscaler looks after every cluster. Where nobody told it what nodes there may be it
    mirrors those that have joined, each as a kind of its own; one that has said nothing, as its
    second version does not in this place, may do more.
    """
    deadline = time.monotonic() + _AUTOSCALER_S
    while time.monotonic() < deadline:
        status = json.loads(_internal_kv_get(ray_constants.DEBUG_AUTOSCALING_STATUS) or "{}")
        if report := status.get("autoscaler_report"):
            kinds = report["node_type_mapping"].items()
            return any(kind != format_readonly_node_type(node) for node, kind in kinds)
        time.sleep(0.2)
    return True


def probe() -> str:
    """Starts a local Ray, runs a task on it, ends it, and says how long that took."""
    begun = time.monotonic()
    with ray_session():
        version = ray.get(ray.remote(_version).remote())
    return f"{version}, a task answered {time.monotonic() - begun:.1f} s after the start"


def _version() -> str:
    return ray.__version__
