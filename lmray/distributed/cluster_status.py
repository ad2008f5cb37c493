"""What a running cluster has, and what waits for what, from its dashboard."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from lmray.distributed.jobs import Jobs

_SHOWN = ("CPU", "GPU", "memory")


@dataclass(frozen=True)
class Node:
    """A node of the cluster."""

    address: str
    head: bool
    alive: bool
    used: dict[str, float]
    total: dict[str, float]


@dataclass(frozen=True)
class Waiting:
    """Tasks, actors or placement groups of one kind that have no place yet."""

    name: str
    count: int
    demand: dict[str, float]
    reason: str


@dataclass(frozen=True)
class ClusterStatus:
    """A cluster at a moment."""

    nodes: list[Node]
    waiting: list[Waiting]
    jobs: list[dict[str, Any]]
    """Those that have not ended: id, status, command."""


def cluster_status(jobs: Jobs) -> ClusterStatus:
    """Asks a cluster's dashboard."""
    status = jobs.get("/api/cluster_status")["data"]["clusterStatus"] or {}
    used = (status.get("loadMetricsReport") or {}).get("usageByNode") or {}
    nodes = [
        Node(
            address=node["node_ip"],
            head=node["is_head_node"],
            alive=node["state"] == "ALIVE",
            used={kind: used.get(node["node_ip"], {}).get(kind, [0.0])[0] for kind in _SHOWN},
            total={kind: node["resources_total"].get(kind, 0.0) for kind in _SHOWN},
        )
        for node in _listed(jobs, "nodes")
    ]
    # A node that was lost and came back is known twice.
    alive = {node.address for node in nodes if node.alive}
    nodes = [node for node in nodes if node.alive or node.address not in alive]
    unfinished = [
        {
            "id": job.submission_id,
            "status": job.status.value,
            "command": (job.metadata or {}).get("command", job.entrypoint),
        }
        for job in jobs.client.list_jobs()
        if job and job.submission_id and not job.status.is_terminal()
    ]
    return ClusterStatus(nodes, _waiting(jobs, nodes), unfinished)


def _waiting(jobs: Jobs, nodes: list[Node]) -> list[Waiting]:
    found: Counter[tuple[str, tuple[tuple[str, float], ...]]] = Counter()
    for task in _listed(jobs, "tasks", "state=PENDING_NODE_ASSIGNMENT"):
        name = task["name"].removesuffix(".__init__").replace(":", " ")
        found[name, tuple(sorted((task.get("required_resources") or {}).items()))] += 1
    for group in _listed(jobs, "placement_groups", "state=PENDING"):
        for bundle in group["bundles"]:
            name = f"placement group {group['name'] or group['placement_group_id'][:8]}"
            found[name, tuple(sorted(bundle["unit_resources"].items()))] += 1
    return [
        Waiting(name, count, dict(demand), _reason(dict(demand), nodes))
        for (name, demand), count in sorted(found.items())
    ]


def _reason(demand: dict[str, float], nodes: list[Node]) -> str:
    """Whether it waits for others to end, or for a node that is not there."""
    known = {kind: amount for kind, amount in demand.items() if kind in _SHOWN}
    fits = any(
        node.alive and all(node.total[kind] >= amount for kind, amount in known.items())
        for node in nodes
    )
    if not fits:
        return "no node is large enough: it waits until one joins"
    return "all nodes that are large enough are busy"


def _listed(jobs: Jobs, kind: str, where: str = "") -> list[dict[str, Any]]:
    """Ray's list of nodes, tasks or placement groups, of those `where` key=value."""
    path = f"/api/v0/{kind}?detail=1&limit=10000"
    if where:
        key, _, value = where.partition("=")
        path += f"&filter_keys={key}&filter_predicates=%3D&filter_values={value}"
    return jobs.get(path)["data"]["result"]["result"]
