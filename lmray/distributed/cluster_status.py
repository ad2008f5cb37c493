"""What a running cluster has, and what waits for what, from its dashboard."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmray.distributed.jobs import Jobs

_SHOWN = ("CPU", "GPU", "memory")

_USAGE = re.compile(
    r"(?P<used>[\d.e+-]+)(?P<unit>B|[KMGT]iB|)/\S+ (?P<kind>\S+)"
    r"(?: \((?P<in_groups>[\d.e+-]+)(?P<in_unit>B|[KMGT]iB|) used of "
    r"(?P<reserved>[\d.e+-]+)(?P<reserved_unit>B|[KMGT]iB|) reserved in placement groups\))?"
)
"""A line that Ray has of a node: `1.0/4.0 CPU (1.0 used of 2.0 reserved in placement groups)`."""

_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


@dataclass(frozen=True)
class Node:
    """A node of the cluster."""

    address: str
    head: bool
    alive: bool
    used: dict[str, float]
    """With what is set aside for placement groups; of memory to three digits."""
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
    known = _listed(jobs, "nodes")
    # The one report that both autoscalers of Ray 2.60 fill; the older one calls nodes by address.
    said = jobs.get("/nodes?view=summary")["data"].get("nodeLogicalResources") or {}
    nodes = []
    for node in known:
        used = _used(said.get(node["node_id"]) or said.get(node["node_ip"]) or "")
        nodes.append(
            Node(
                address=node["node_ip"],
                head=node["is_head_node"],
                alive=node["state"] == "ALIVE",
                used={kind: used.get(kind, 0.0) for kind in _SHOWN},
                total={kind: node["resources_total"].get(kind, 0.0) for kind in _SHOWN},
            )
        )
    # A node that was lost and came back is known twice.
    alive = {node.address for node in nodes if node.alive}
    nodes = [node for node in nodes if node.alive or node.address not in alive]
    details = [job for job in jobs.client.list_jobs() if job and job.submission_id]
    unfinished = [
        {
            "id": job.submission_id,
            "status": job.status.value,
            "command": (job.metadata or {}).get("job_name", job.entrypoint),
        }
        for job in details
        if not job.status.is_terminal()
    ]
    owners = {str(job.job_id): str(job.submission_id) for job in details}
    resources = [node["resources_total"] for node in known if node["state"] == "ALIVE"]
    return ClusterStatus(nodes, _waiting(jobs, owners, resources), unfinished)


def _used(lines: str) -> dict[str, float]:
    """What is used of a node, or set aside, by kind, from Ray's text about it."""
    used = {}
    for line in _USAGE.finditer(lines):
        # Ray takes away what placement groups hold and do not use: nobody else can have that.
        idle = _amount(line["reserved"], line["reserved_unit"])
        idle -= _amount(line["in_groups"], line["in_unit"])
        used[line["kind"]] = _amount(line["used"], line["unit"]) + idle
    return used


def _amount(number: str | None, unit: str | None) -> float:
    return float(number or 0) * _UNITS[unit or ""]


def _waiting(
    jobs: Jobs, owners: Mapping[str, str], resources: list[dict[str, float]]
) -> list[Waiting]:
    """What has no place, where nodes have these resources; `owners` are submissions by job."""
    found: Counter[tuple[str, tuple[tuple[str, float], ...]]] = Counter()
    # The creation of an actor is a task, the first time.
    for task in _listed(jobs, "tasks", "state=PENDING_NODE_ASSIGNMENT"):
        name = task["name"].removesuffix(".__init__").replace(":", " ")
        found[name, _demand(task["required_resources"])] += 1
    for actor in _listed(jobs, "actors", "state=RESTARTING"):
        found[actor["repr_name"] or actor["class_name"], _demand(actor["required_resources"])] += 1
    for state in ("PENDING", "RESCHEDULING"):
        for group in _listed(jobs, "placement_groups", f"state={state}"):
            owner = owners.get(group["creator_job_id"], "")
            name = f"placement group {group['name'] or (owner and f'of {owner}')}".strip()
            for bundle in group["bundles"]:
                if not bundle["node_id"]:
                    found[name, _demand(bundle["unit_resources"])] += 1
    return [
        Waiting(name, count, dict(demand), _reason(dict(demand), resources))
        for (name, demand), count in sorted(found.items())
    ]


def _demand(resources: Mapping[str, float] | None) -> tuple[tuple[str, float], ...]:
    """What is asked for; of a placement group, CPU_group_ID, as of a node."""
    plain = {kind.partition("_group_")[0]: amount for kind, amount in (resources or {}).items()}
    plain.pop("bundle", None)
    return tuple(sorted(plain.items()))


def _reason(demand: dict[str, float], resources: list[dict[str, float]]) -> str:
    """Whether it waits for others to end, or for a node that is not there."""
    fits = any(
        all(total.get(kind, 0.0) >= amount for kind, amount in demand.items())
        for total in resources
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
