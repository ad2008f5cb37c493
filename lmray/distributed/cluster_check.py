"""Whether a cluster's YAML and the hosts it names are fit for `ray up`: each fault with its remedy.

Nothing is started or changed; a probe file of shared storage is removed again.
"""

import re
import time
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

from lmray.distributed.aws_groups import open_rules
from lmray.distributed.aws_profiles import unfit_profiles
from lmray.distributed.cluster_between import unreached, unshared
from lmray.distributed.cluster_finding import Finding
from lmray.distributed.cluster_tokens import SALT, token_here, tokens_there, wants_no_token
from lmray.distributed.cluster_yaml import ClusterYaml, read_cluster_yaml
from lmray.distributed.node_ssh import everywhere, probe
from lmray.errors import PreflightError

_CLOCK_SECONDS = 2.0
_SAME = ("ray", "torch", "numpy", "numba")
"""Packages whose version matters: Ray refuses another, the others compute what a curve shows."""


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
    findings += [Finding("role", False, *each) for each in unfit_profiles(cluster.config, root)]
    token = token_here(cluster)
    findings.append(token)
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
    if token.ok and not wants_no_token(cluster):
        findings += tokens_there(cluster, facts)
    hosts = [host for host in cluster.hosts if host in facts]
    findings += unreached(cluster, hosts)
    findings += unshared(cluster, hosts, root)
    return findings


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

    def ask(host: str) -> dict[str, Any]:
        begun = time.time()
        facts = probe(cluster, host, do="facts", packages=[*_needed()], salt=SALT)
        # Read somewhere between: neither the way there nor the way back is known.
        facts["clock"] = max(begun - facts["time"], facts["time"] - time.time(), 0.0)
        return facts

    facts, lost = everywhere("ssh", ask, cluster.hosts)
    reached = [
        Finding("ssh", True, f"{host}: {each['cores']} cores") for host, each in facts.items()
    ]
    return facts, reached + lost


def _needed() -> dict[str, str]:
    """What lmray depends on, with the version here; lmray itself comes with each job."""
    names = [
        re.split(r"[^\w.-]", requirement)[0]
        for requirement in metadata.requires("lmray") or []
        if "extra ==" not in requirement
    ]
    return {name: metadata.version(name) for name in dict.fromkeys([*_SAME, *names])}


def _versions(facts: dict[str, dict[str, Any]]) -> list[Finding]:
    """One Python on all hosts, as Ray insists; Ray and what computes as here; the rest at all."""
    findings = []
    head, *others = facts
    python = facts[head]["python"]
    wrong = {host: facts[host]["python"] for host in others if facts[host]["python"] != python}
    where = ", ".join(f"{host} has {version}" for host, version in wrong.items())
    if wrong:
        remedy = f"install Python {python} there and make it the first `python` on the PATH"
        findings.append(Finding("python", False, f"{where}; {head} has {python}", remedy))
    else:
        findings.append(Finding("python", True, f"{python} on all"))
    needed = _needed()
    for package in _SAME:
        wanted = _public(needed[package])
        wrong = {
            host: found[package]
            for host, found in facts.items()
            if _public(found[package]) != wanted
        }
        where = ", ".join(f"{host} has {version}" for host, version in wrong.items())
        found = f"{where}; here it is {wanted}" if wrong else f"{wanted} on all"
        remedy = f"pip install {package}=={wanted} there" if wrong else ""
        findings.append(Finding(package, not wrong, found, remedy))
    for host, found in facts.items():
        absent = [name for name in needed if name not in _SAME and found[name] == "not installed"]
        if absent:
            remedy = f"pip install --constraint constraints.txt {' '.join(absent)} there"
            what = f"{host} lacks {', '.join(absent)}, which lmray depends on"
            findings.append(Finding("packages", False, what, remedy))
    for host, found in facts.items():
        if not found["ray_command"]:
            remedy = "export the PATH of its environment at the top of ~/.bashrc there"
            findings.append(
                Finding("ray", False, f"{host}: `ray` is not on the PATH of a login", remedy)
            )
    return findings


def _public(version: str) -> str:
    """A version without what it was built for, as in 2.13.0+cpu."""
    return version.partition("+")[0]


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
