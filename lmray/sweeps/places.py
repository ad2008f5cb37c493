"""How many trials run at once: as many as the scarcer of CPUs and GPUs has room for."""

from collections.abc import Sequence
from dataclasses import dataclass

from lmray.config import Execution
from lmray.errors import PreflightError
from lmray.training.gpu_share import PARTS, parts, trials_per_gpu

_SHOWN = 4
"""Nodes that a refusal names."""


@dataclass(frozen=True)
class Node:
    """A machine, by what its processes may use."""

    name: str
    cpus: float
    gpus: float


def demand(execution: Execution, nodes: Sequence[Node]) -> dict[str, float]:
    """What each of a trial's processes takes, in Ray's words: a CPU, and its share of a GPU.

    With execution.device=auto a GPU is asked for where any of the nodes has one.
    """
    on_gpu = {"cpu": False, "cuda": True, "auto": any(node.gpus for node in nodes)}
    share = {"GPU": parts(execution.gpu_share) / PARTS} if on_gpu[execution.device] else {}
    return {"CPU": 1, **share}


def room(execution: Execution, nodes: Sequence[Node]) -> int:
    """Processes of trials that the nodes have room for at a time."""
    asked = demand(execution, nodes)
    return sum(_limit(node, asked)[0] for node in nodes)


def at_once(execution: Execution, nodes: Sequence[Node]) -> int:
    """Trials that the nodes have room for at a time.

    Raises PreflightError if not even one fits, naming what each node has too little of: Ray would
    wait for ever.
    """
    found = room(execution, nodes)
    if found < execution.workers:
        asked = demand(execution, nodes)
        each = " and ".join(f"{count:g} {kind}" for kind, count in asked.items())
        shown = [said for _, said in sorted((_limit(node, asked) for node in nodes), reverse=True)]
        more = [f"{len(shown) - _SHOWN} more with no more"] if len(shown) > _SHOWN else []
        device = ", set execution.device=cpu" if execution.device == "cuda" else ""
        raise PreflightError(
            f"execution.workers={execution.workers}, but Ray has room for {found} at {each} each "
            f"({', '.join(shown[:_SHOWN] + more)}); lower execution.workers{device} or add nodes"
        )
    return found // execution.workers


def _limit(node: Node, asked: dict[str, float]) -> tuple[int, str]:
    """Processes that the node has room for, and what it has too little of for more, in words."""
    by_cpus = int(node.cpus), f"{node.name} has {node.cpus:g} CPUs"
    if "GPU" not in asked:
        return by_cpus
    by_gpus = int(node.gpus) * trials_per_gpu(asked["GPU"]), f"{node.name} has {node.gpus:g} GPUs"
    return min(by_cpus, by_gpus, key=lambda limit: limit[0])
