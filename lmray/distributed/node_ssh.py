"""Asking a cluster's hosts through ssh, as Ray will: each one's own Python runs node_probe.py."""

import json
import shlex
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lmray.distributed.cluster_finding import Finding
from lmray.distributed.cluster_yaml import ClusterYaml
from lmray.errors import LmrayError

_SSH_SECONDS = 10
_PROBE = Path(__file__).with_name("node_probe.py")
_MARK = "lmray-node-probe "


class Unreachable(LmrayError):
    """A node that ssh did not bring us to; has its remedy."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.remedy = remedy


def everywhere(
    what: str, function: Callable[[str], Any], hosts: Sequence[str]
) -> tuple[dict[str, Any], list[Finding]]:
    """What the function says of each host, asked side by side; findings on those not reached."""

    def ask(host: str) -> Any:
        try:
            return function(host)
        except Unreachable as error:
            return Finding(what, False, f"{host}: {error}", error.remedy)

    with ThreadPoolExecutor(max_workers=16) as pool:
        answers = dict(zip(hosts, pool.map(ask, hosts), strict=True))
    lost = [each for each in answers.values() if isinstance(each, Finding)]
    said = {host: each for host, each in answers.items() if not isinstance(each, Finding)}
    return said, lost


def start(cluster: ClusterYaml, node: str, **asked: Any) -> subprocess.Popen[str]:
    """Starts the probe on a node with the ssh options and the login shell that Ray uses."""
    code = shlex.quote(_PROBE.read_text())
    shell = f"source ~/.bashrc; python -c {code} {shlex.quote(json.dumps(asked))}"
    user = cluster.config.get("auth", {}).get("ssh_user", "root")
    command = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_SSH_SECONDS}"]
    command += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    command += ["-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes"]
    command += ["-o", f"ServerAliveInterval={_SSH_SECONDS}"]  # or it waits for one that is off
    command += ["-i", str(cluster.key)] if cluster.key else []
    command += [f"{user}@{node}", f"bash --login -i -c {shlex.quote(shell)}"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the probe said.

    Raises Unreachable if it said nothing.
    """
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(_MARK):
            return json.loads(line.removeprefix(_MARK))
    assert process.stderr is not None
    noise = ("cannot set terminal process group", "no job control", "Inappropriate ioctl")
    lines = [line for line in process.stderr if not any(word in line for word in noise)]
    said = " ".join(" ".join(lines).split())[-200:]
    if process.wait() != 255:
        raise Unreachable(
            f"no Python ran the probe ({said})",
            "put `python` of Ray's environment on the PATH there",
        )
    if "Permission denied" in said:
        raise Unreachable(
            f"refuses the key ({said})", "add its public half to ~/.ssh/authorized_keys there"
        )
    raise Unreachable(
        f"no answer to ssh ({said})", "is it on, is sshd running, may port 22 be reached from here?"
    )


def probe(cluster: ClusterYaml, node: str, **asked: Any) -> dict[str, Any]:
    """What the probe says on a node, once it has ended there.

    Raises Unreachable if it says nothing.
    """
    with start(cluster, node, **asked) as process:
        assert process.stdin is not None
        process.stdin.close()
        return answer(process)
