"""A Slurm of two nodes on this machine for tests, and why a machine cannot have one."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
_NODES = ("n1", "n2")


def missing() -> str:
    """What keeps this machine from running a Slurm of its own; empty if nothing does."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a Slurm of one's own needs Linux and root"
    tools = ["munged", "slurmctld", "slurmd", "sbatch"]
    absent = [tool for tool in tools if not shutil.which(tool, path=_PATH)]
    return f"{', '.join(absent)} not found (Debian: slurm-wlm, munge)" if absent else ""


class Slurm:
    """Its daemons, with all their files in one folder; both nodes are this machine."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._daemons = ExitStack()
        host, address = socket.gethostname(), "127.0.0.1"
        control, *ports = _free_ports(1 + len(_NODES))
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr={address} Port={port} CPUs=1 "
            "RealMemory=2000"
            for node, port in zip(_NODES, ports, strict=True)
        )
        (directory / "slurm.conf").write_text(f"""\
ClusterName=lmrayt
SlurmctldHost={host}({address})
SlurmctldPort={control}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.sock
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
MpiDefault=none
SlurmdParameters=config_overrides
{nodes}
PartitionName=all Nodes={",".join(_NODES)} Default=YES State=UP
""")

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM_"))}
        return kept | {
            "PATH": _PATH,
            "PYTHONPATH": str(ROOT),
            "SLURM_CONF": str(self._directory / "slurm.conf"),
            "LMRAY_VENV": str(Path(sys.executable).parents[1]),
            "LMRAY_WAIT_S": "500",
        }

    def __enter__(self) -> "Slurm":
        (self._directory / "munge.key").write_bytes(os.urandom(128))
        (self._directory / "munge.key").chmod(0o400)
        # munged trusts no socket whose folders others may write to, which is so of /tmp.
        files = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log"}
        files["seed-file"] = "seed"
        options = [f"--{name}={self._directory}/munge.{ext}" for name, ext in files.items()]
        self._start("munged", "--foreground", "--force", *options)
        _await(lambda: (self._directory / "munge.sock").exists(), "munged")
        (self._directory / "state").mkdir()
        self._start("slurmctld", "-D")
        for node in _NODES:
            (self._directory / node).mkdir()
            self._start("slurmd", "-D", "-N", node)
        _await(lambda: self.run("sinfo", "-h", "-o", "%D %t").strip() == "2 idle", "slurmd")
        return self

    def __exit__(self, *_: object) -> None:
        self._daemons.close()

    def _start(self, *command: str) -> None:
        with (self._directory / f"{command[0]}.out").open("ab") as log:
            daemon = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self._daemons.callback(daemon.wait)
        self._daemons.callback(daemon.terminate)

    def run(self, *command: str) -> str:
        """What a command of Slurm's prints; nothing while its daemon is not up."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        ).stdout

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        words = self.run("scontrol", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _await(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until, f"{what} did not come up"
        time.sleep(0.2)
