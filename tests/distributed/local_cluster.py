"""scripts/local_cluster.sh for tests: a cluster of its own, and why a machine cannot have one."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


def missing() -> str:
    """What keeps this machine from having hosts in namespaces; empty if nothing does."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts in namespaces need Linux and root"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    tools = ["ip", "sshd", "ssh", "ssh-keygen", "rsync", "nsenter", "unshare", "pgrep"]
    absent = [tool for tool in tools if not shutil.which(tool, path=path)]
    if absent:
        return f"{', '.join(absent)} not found (Debian: openssh-server, rsync, iproute2, procps)"
    made = subprocess.run(["ip", "link", "add", "lmrayt-try", "type", "bridge"], check=False)
    subprocess.run(["ip", "link", "del", "lmrayt-try"], check=False, capture_output=True)
    return "" if made.returncode == 0 else "this machine lets nobody make network bridges"


@dataclass(frozen=True)
class LocalCluster:
    """A cluster beside the one a user may have."""

    directory: Path
    auth_mode: str = "token"
    """For this side's commands; with none they have no token either."""

    @property
    def yaml(self) -> Path:
        return self.directory / "cluster.yaml"

    @property
    def shared(self) -> Path:
        return self.directory / "shared"

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "LMRAY_"))}
        auth = {}
        if self.auth_mode:
            auth["RAY_AUTH_MODE"] = self.auth_mode
            auth["RAY_AUTH_TOKEN_PATH"] = str(self.directory / "auth_token")
        return (
            kept
            | auth
            | {
                "PYTHONPATH": str(ROOT),
                "LMRAY_VENV": str(Path(sys.executable).parents[1]),
                "LMRAY_CLUSTER_NAME": "lmrayt",
                "LMRAY_CLUSTER_NET": "10.78.0",
                "LMRAY_CLUSTER_DIR": str(self.directory),
                "RAY_TMPDIR": str(self.directory / "client"),
                "RAY_UP_enable_autoscaler_v2": "0",
            }
        )

    def script(self, *arguments: object, code: int = 0) -> str:
        """What a verb of the script prints."""
        return self._run("bash", ROOT / "scripts" / "local_cluster.sh", *arguments, code=code)

    def lmray(
        self, *arguments: object, code: int = 0, cwd: Path = ROOT, seconds: float = 280
    ) -> str:
        """What lmray prints, on either stream."""
        command = [sys.executable, "-m", "lmray", *arguments]
        return self._run(*command, code=code, cwd=cwd, seconds=seconds)

    def start(self, *arguments: object, log: Path) -> "subprocess.Popen[bytes]":
        """lmray beside this process; what it prints goes to `log`."""
        with log.open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "lmray", *map(str, arguments)],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    def _run(self, *command: object, code: int, cwd: Path = ROOT, seconds: float = 280) -> str:
        done = subprocess.run(
            list(map(str, command)),
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout


@contextmanager
def made(directory: Path, verb: str) -> Iterator[LocalCluster]:
    """What a verb of the script makes, of which nothing is left afterwards."""
    cluster = LocalCluster(directory)
    cluster.script("down")
    try:
        cluster.script(verb)
        yield cluster
    finally:
        assert "nothing of the cluster is left" in cluster.script("down")
        links = ["ip", "-o", "link"]
        left = subprocess.run(links, capture_output=True, text=True, check=True).stdout
        assert "lmrayt" not in left


def await_status(cluster: LocalCluster, *wanted: str) -> None:
    """Waits for lines of `lmray cluster status`; the test's time limit ends it."""
    while True:
        said = cluster.lmray("cluster", "status", cluster.yaml)
        if all(line in said for line in wanted):
            return
        time.sleep(3)
