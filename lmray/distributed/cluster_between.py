"""Between the hosts of a cluster: whether each reaches every other one, and one storage all."""

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from lmray.distributed.cluster_finding import Finding
from lmray.distributed.cluster_yaml import ClusterYaml
from lmray.distributed.node_ssh import answer, everywhere, probe, start
from lmray.errors import PreflightError
from lmray.remote import SCHEMES


def unreached(cluster: ClusterYaml, hosts: Sequence[str]) -> list[Finding]:
    """Whether each host reaches every other one, and Ray's port on the head.

    Ray, or a probe, listens there; elsewhere a probe at a port that is free, as Ray's workers will.
    """
    head = cluster.hosts[0]
    if head not in hosts:
        return []
    try:
        gcs = cluster.port
    except PreflightError as error:
        found, _, remedy = str(error).partition("; ")
        return [Finding("ports", False, found, remedy)]
    with ExitStack() as stack:

        def listen(host: str) -> dict[str, Any]:
            ports = [gcs, 0] if host == head else [0]
            return answer(stack.enter_context(start(cluster, host, do="listen", ports=ports)))

        open_at: dict[str, list[int]] = {}
        who = "free"
        heard, findings = everywhere("ports", listen, hosts)
        for host, listening in heard.items():
            open_at[host] = [port for port in listening["ports"] if port is not None]
            if host == head and listening["ports"][0] is None:
                if not any("gcs_server" in name for name in listening["holders"]):
                    held = ", ".join(listening["holders"]) or "a process of another user"
                    what = f"{head}: port {gcs} is taken by {held}"
                    remedy = "stop it, or give Ray another --port in both start commands"
                    return [*findings, Finding("ports", False, what, remedy)]
                open_at[head].insert(0, gcs)
                who = "Ray is up"

        def connect(host: str) -> list[list[Any]]:
            others = [(each, port) for each in open_at if each != host for port in open_at[each]]
            return probe(cluster, host, do="connect", to=others)["failed"]

        tried, lost = everywhere("ports", connect, [*open_at])
        findings += lost
        for host, unmet in tried.items():
            # That a host which has gone is not reached is said once.
            if failed := [each for each in unmet if each[0] in tried]:
                where = ", ".join(f"{other} port {port}" for other, port, _ in failed[:3])
                more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
                what = f"{host} cannot reach {where}{more}: {failed[0][2]}"
                remedy = "open all ports among the cluster's hosts, to each other and nobody else"
                findings.append(Finding("ports", False, what, remedy))
    reach = "each host reaches every other one"
    return findings or [Finding("ports", True, f"{head} port {gcs}: {who}; {reach}")]


def unshared(cluster: ClusterYaml, hosts: Sequence[str], root: str) -> list[Finding]:
    """A file or an object written on one node beneath the root, and read on every other."""
    if not root:
        return [Finding("storage", True, "not looked at; --root names what all nodes share")]
    at_a_url = "://" in root
    known = [scheme for scheme in SCHEMES if root.startswith(f"{scheme}//")]
    if at_a_url and not known:
        return [Finding("storage", False, f"--root {root} is neither s3:// nor gs://", "give one")]
    if not at_a_url and not root.startswith("/"):
        return [Finding("storage", False, f"--root {root} is relative", "give an absolute path")]
    remedies = ["mount the shared file system there, writable"]
    remedies += ["mount the same file system (NFS, EFS, Lustre ...) at that path on every host"]
    if at_a_url:
        # With a job's own keys it may yet do: what `submit --env` brings is not here.
        remedies = ["give the host a role, or keys in its ~/.bashrc, that may use the bucket"] * 2
    file = {"path": f"{root.rstrip('/')}/.lmray-probe-{secrets.token_hex(8)}"}
    text = secrets.token_hex(16)

    def each(hosts: Sequence[str], **asked: Any) -> tuple[dict[str, Any], list[Finding]]:
        return everywhere("storage", lambda host: probe(cluster, host, **asked, **file), hosts)

    written, lost = each(hosts[:1], do="write", text=text)
    if lost:
        return lost
    if error := written[hosts[0]]["error"]:
        what = f"{hosts[0]} cannot write to {root}: {error}"
        return [Finding("storage", False, what, remedies[0])]
    read, findings = each(hosts[1:], do="read", text=text)
    for host, found in read.items():
        if found["error"]:
            what = f"{host} does not see what {hosts[0]} wrote to {root}: {found['error']}"
            findings.append(Finding("storage", False, what, remedies[1]))
    findings += each(hosts[:1], do="remove")[1]
    return findings or [Finding("storage", True, f"{root} is the same on {len(hosts)} hosts")]
