"""Whether a cluster's YAML and the hosts it names are fit for `ray up`: each fault with its remedy.

Nothing is started or changed; a probe file of shared storage is removed again.
"""

import json
import os
import platform
import secrets
import shlex
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lmray.distributed.aws_groups import open_rules
from lmray.distributed.cluster_yaml import GCS_PORT, ClusterYaml, read_cluster_yaml
from lmray.distributed.jobs import auth_token
from lmray.errors import LmrayError, PreflightError

_CLOCK_SECONDS = 2.0
_SSH_SECONDS = 10
_PROBE = Path(__file__).with_name("node_probe.py")
_MARK = "lmray-node-probe "


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)


class _Unreachable(LmrayError):
    """A node that ssh did not bring us to; has its remedy."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.remedy = remedy


def check_cluster(path: Path, root: str) -> list[Finding]:
    """Looks at the YAML, then at every host it names, and at `root` on them if it is not empty."""
    try:
        cluster = read_cluster_yaml(path)
    except PreflightError as error:
        found, _, remedy = str(error).partition("; ")
        return [Finding("yaml", False, found, remedy)]
    findings = [Finding("yaml", True, f"{path} fits Ray's schema")]
    exposed = list(cluster.exposed()) or list(open_rules(cluster.config))
    findings += [Finding("exposure", False, what, remedy) for what, remedy in exposed]
    findings.append(_token(cluster))
    if cluster.key is not None:
        findings.append(_key(cluster.key))
    if not cluster.hosts:
        kind = cluster.config["provider"]["type"]
        findings.append(Finding("hosts", True, f"provider {kind} makes them; none to look at yet"))
        return findings
    if not all(finding.ok for finding in findings if finding.what == "ssh key"):
        return findings
    facts, reached = _reach(cluster)
    findings += reached
    if not facts:
        return findings
    findings += _versions(facts) + _clocks(facts) + _gpus(cluster, facts)
    hosts = [host for host in cluster.hosts if host in facts]
    findings += _ports(cluster, hosts)
    findings += _storage(cluster, hosts, root)
    return findings


def _token(cluster: ClusterYaml) -> Finding:
    commands = [cluster.head_start, cluster.worker_start, *cluster.config.get("setup_commands", [])]
    if (
        "RAY_AUTH_MODE=disabled" in "\n".join(commands)
        or os.environ.get("RAY_AUTH_MODE") == "disabled"
    ):
        return Finding("token", True, "the cluster asks for none")
    try:
        auth_token("the cluster")
    except PreflightError as error:
        return Finding(
            "token", False, str(error).partition("; ")[0], "`ray get-auth-token --generate`, once"
        )
    return Finding("token", True, "there is one here")


def _key(key: Path) -> Finding:
    if not key.is_file():
        return Finding(
            "ssh key", False, f"{key} is not there", "correct auth.ssh_private_key or copy the key"
        )
    if key.stat().st_mode & 0o077:
        return Finding("ssh key", False, f"others may read {key}", f"chmod 600 {key}")
    return Finding("ssh key", True, str(key))


def _reach(cluster: ClusterYaml) -> tuple[dict[str, dict[str, Any]], list[Finding]]:
    """The facts of each node that can be reached, and what became of each."""

    def ask(host: str) -> dict[str, Any] | _Unreachable:
        begun = time.time()
        try:
            facts = _probe(cluster, host, do="facts")
        except _Unreachable as error:
            return error
        # Read somewhere between: neither the way there nor the way back is known.
        facts["clock"] = max(begun - facts["time"], facts["time"] - time.time(), 0.0)
        return facts

    facts, findings = {}, []
    for host, answer in _everywhere(ask, cluster.hosts):
        if isinstance(answer, _Unreachable):
            findings.append(Finding("ssh", False, f"{host}: {answer}", answer.remedy))
            continue
        findings.append(Finding("ssh", True, f"{host}: {answer['cores']} cores"))
        facts[host] = answer
    return facts, findings


def _versions(facts: dict[str, dict[str, Any]]) -> list[Finding]:
    """Ray, Python and lmray as here: Ray refuses others, and curves depend on the code."""
    here = {"python": platform.python_version()}
    here |= {package: metadata.version(package) for package in ("ray", "lmray")}
    findings = []
    for package, wanted in here.items():
        wrong = {host: found[package] for host, found in facts.items() if found[package] != wanted}
        where = ", ".join(f"{host} has {version}" for host, version in wrong.items())
        remedy = {
            "python": f"install Python {wanted} there and make it the first `python` on the PATH",
            "ray": f"pip install ray=={wanted} there",
            "lmray": "install this project there: pip install --constraint constraints.txt .",
        }[package]
        found = f"{where}; here it is {wanted}" if wrong else f"{wanted} on all"
        findings.append(Finding(package, not wrong, found, remedy if wrong else ""))
    for host, found in facts.items():
        if not found["ray_command"]:
            remedy = "export the PATH of its environment at the top of ~/.bashrc there"
            findings.append(
                Finding("ray", False, f"{host}: `ray` is not on the PATH of a login", remedy)
            )
    return findings


def _clocks(facts: dict[str, dict[str, Any]]) -> list[Finding]:
    wrong = {
        host: found["clock"] for host, found in facts.items() if found["clock"] > _CLOCK_SECONDS
    }
    if not wrong:
        return [Finding("clock", True, f"within {_CLOCK_SECONDS:g} s of this machine's")]
    where = ", ".join(f"{host} is {off:.0f} s off" for host, off in wrong.items())
    return [Finding("clock", False, where, "let chrony or systemd-timesyncd set it there")]


def _gpus(cluster: ClusterYaml, facts: dict[str, dict[str, Any]]) -> list[Finding]:
    findings = []
    for host, found in facts.items():
        commands = cluster.head_start if host == cluster.hosts[0] else cluster.worker_start
        wanted = cluster.gpus(commands)
        if found["gpus"] < wanted:
            findings.append(
                Finding(
                    "gpus",
                    False,
                    f"{host}: {found['gpus']} GPUs, but Ray is started with --num-gpus={wanted}",
                    "install NVIDIA's driver there (`nvidia-smi -L` lists the GPUs) or lower it",
                )
            )
    if findings:
        return findings
    counts = Counter(found["gpus"] for found in facts.values())
    seen = ", ".join(f"{gpus} on {nodes} nodes" for gpus, nodes in sorted(counts.items()))
    return [Finding("gpus", True, seen)]


def _ports(cluster: ClusterYaml, hosts: Sequence[str]) -> list[Finding]:
    """Whether every worker can reach Ray's port on the head, where Ray or a probe listens."""
    head, workers = cluster.hosts[0], [host for host in hosts if host != cluster.hosts[0]]
    if head not in hosts:
        return []
    with ExitStack() as stack:
        process = stack.enter_context(_start(cluster, head, do="listen", port=GCS_PORT))
        assert process.stdin is not None
        stack.callback(process.stdin.close)
        answer = _answer(process)
        if not answer["listening"] and not any("gcs_server" in name for name in answer["holders"]):
            held = ", ".join(answer["holders"]) or "a process of another user"
            return [
                Finding(
                    "ports",
                    False,
                    f"{head}: port {GCS_PORT} is taken by {held}",
                    "stop it, or give Ray another --port in both start commands",
                )
            ]
        findings = []
        for host, found in _everywhere(
            lambda host: _probe(cluster, host, do="connect", host=head, port=GCS_PORT), workers
        ):
            if found["error"]:
                what = f"{host} cannot reach {head} port {GCS_PORT}: {found['error']}"
                remedy = "open all ports among the cluster's hosts, to each other and nobody else"
                findings.append(Finding("ports", False, what, remedy))
    who = "Ray is up" if not answer["listening"] else "free"
    return findings or [Finding("ports", True, f"{head} port {GCS_PORT}: {who}, all reach it")]


def _storage(cluster: ClusterYaml, hosts: Sequence[str], root: str) -> list[Finding]:
    """A file written on one node beneath the root, and read on every other."""
    if not root:
        return [Finding("storage", True, "not looked at; --root names the folder all nodes share")]
    if "://" in root:
        return [Finding("storage", True, f"{root} is tried when a run starts, on every node")]
    if not root.startswith("/"):
        return [Finding("storage", False, f"--root {root} is relative", "give an absolute path")]
    file = {"path": f"{root}/.lmray-probe-{secrets.token_hex(8)}"}
    text = secrets.token_hex(16)
    written = _probe(cluster, hosts[0], do="write", text=text, **file)
    if written["error"]:
        what = f"{hosts[0]} cannot write to {root}: {written['error']}"
        return [Finding("storage", False, what, "mount the shared file system there, writable")]
    findings = []
    for host, found in _everywhere(
        lambda host: _probe(cluster, host, do="read", text=text, **file), hosts[1:]
    ):
        if found["error"]:
            what = f"{host} does not see what {hosts[0]} wrote to {root}"
            remedy = "mount the same file system (NFS, EFS, Lustre ...) at that path on every host"
            findings.append(Finding("storage", False, what, remedy))
    _probe(cluster, hosts[0], do="remove", **file)
    return findings or [Finding("storage", True, f"{root} is the same on {len(hosts)} hosts")]


def _everywhere(function: Callable[[str], Any], hosts: Sequence[str]) -> list[tuple[str, Any]]:
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(zip(hosts, pool.map(function, hosts), strict=True))


def _start(cluster: ClusterYaml, node: str, **asked: Any) -> subprocess.Popen[str]:
    """Starts the probe on a node with the ssh options and the login shell that Ray uses."""
    code = shlex.quote(_PROBE.read_text())
    shell = f"source ~/.bashrc; python -c {code} {shlex.quote(json.dumps(asked))}"
    user = cluster.config.get("auth", {}).get("ssh_user", "root")
    command = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_SSH_SECONDS}"]
    command += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    command += ["-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes"]
    command += ["-i", str(cluster.key)] if cluster.key else []
    command += [f"{user}@{node}", f"bash --login -i -c {shlex.quote(shell)}"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the probe said.

    Raises _Unreachable if it said nothing.
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
        raise _Unreachable(
            f"no Python ran the probe ({said})",
            "put `python` of Ray's environment on the PATH there",
        )
    if "Permission denied" in said:
        raise _Unreachable(
            f"refuses the key ({said})", "add its public half to ~/.ssh/authorized_keys there"
        )
    raise _Unreachable(
        f"no answer to ssh ({said})", "is it on, is sshd running, may port 22 be reached from here?"
    )


def _probe(cluster: ClusterYaml, node: str, **asked: Any) -> dict[str, Any]:
    with _start(cluster, node, **asked) as process:
        assert process.stdin is not None
        process.stdin.close()
        return _answer(process)
