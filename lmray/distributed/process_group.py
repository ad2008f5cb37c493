"""Torch's process group of a run's workers, set up by Ray Train, with two things it leaves open."""

import os
import socket
import struct
import sys
from typing import Any

import ray
from ray.train.torch import TorchConfig

from lmray.distributed.notice import heed

_SIOCGIFADDR = 0x8915


class ProcessGroup(TorchConfig):
    """Workers that talk over the network by which Ray knows their nodes, and that heed notices."""

    @property
    def backend_cls(self) -> Any:
        """What Ray Train sets its workers up with."""
        return _Backend


class _Backend(TorchConfig().backend_cls):  # pyrefly: ignore[invalid-inheritance]
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Called by Ray Train before the group is made."""
        worker_group.execute(_name_interface)
        super().on_start(worker_group, backend_config)

    def on_training_start(self, worker_group: Any, backend_config: Any) -> None:
        """Called by Ray Train before the workers' loops."""
        super().on_training_start(worker_group, backend_config)
        worker_group.execute(heed)


def _name_interface() -> None:
    # Gloo takes the one that the host's name stands for: often the loopback, or none.
    if name := interface_of(ray.util.get_node_ip_address()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def interface_of(address: str) -> str:
    """The network interface that has an IPv4 address; empty if none has, or this is not Linux."""
    if sys.platform != "linux":
        return ""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            asked = struct.pack("256s", name.encode())
            try:
                answer = fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, asked)
            except OSError:
                continue  # it has no such address
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return ""
