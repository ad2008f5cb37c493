"""How many trials run at once: as many as the scarcer of CPUs and GPUs has room for, or as stated.

A cluster that grows has nodes only once something waits for them: how many trials may wait, and
for what, has to be said then, for the nodes that live do not tell.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmray.config import Execution
from lmray.errors import PreflightError
from lmray.training.gpu_share import PARTS, parts, trials_per_gpu
from lmray.training.loop import never

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


def at_once(
    execution: Execution,
    nodes: Sequence[Node],
    *,
    stated: int = 0,
    grows: Callable[[], bool] = never,
) -> int:
    """Trials that may run at a time: `stated`, or 0 for as many as the nodes have room for.

    More than they have room for may be stated where the cluster `grows()`: the others wait for its
    next nodes, which come because they wait.

    Raises PreflightError if Ray would wait for ever, naming what each node has too little of, or if
    it does not show what the next nodes are to have.
    """
    found = room(execution, nodes) // execution.workers
    if found and stated <= found:
        return stated or found
    to_come = grows()
    if not stated or not to_come:
        raise _refusal(execution, nodes, stated if found else 0, to_come=to_come)
    if execution.device == "auto" and not any(node.gpus for node in nodes):
        raise PreflightError(
            f"execution.device=auto, but Ray has room for {found} of {stated} trials at once and "
            f"no node with a GPU yet, so it does not know which nodes to ask for; set "
            f"execution.device=cuda or execution.device=cpu"
        )
    return stated


def _refusal(
    execution: Execution, nodes: Sequence[Node], stated: int, *, to_come: bool
) -> PreflightError:
    asked = demand(execution, nodes)
    each = " and ".join(f"{count:g} {kind}" for kind, count in asked.items())
    shown = [said for _, said in sorted((_limit(node, asked) for node in nodes), reverse=True)]
    more = [f"{len(shown) - _SHOWN} more with no more"] if len(shown) > _SHOWN else []
    given = f"--at-once={stated} and " if stated else ""
    remedies = ["lower --at-once"] if stated else []
    if execution.workers > 1:
        remedies.append("lower execution.workers")
    if execution.device == "cuda":
        remedies.append("set execution.device=cpu")
    last = "say --at-once N, as many trials as may wait for nodes of a cluster that grows"
    remedies.append(last if to_come else "add nodes")
    return PreflightError(
        f"{given}execution.workers={execution.workers}, but Ray has room for "
        f"{room(execution, nodes)} at {each} each ({', '.join(shown[:_SHOWN] + more)}); "
        f"{_either(remedies)}"
    )


def _either(remedies: Sequence[str]) -> str:
    """One, or one of several."""
    *others, last = remedies
    return f"{', '.join(others)} or {last}" if others else last


def _limit(node: Node, asked: dict[str, float]) -> tuple[int, str]:
    """Processes that the node has room for, and what it has too little of for more, in words."""
    by_cpus = int(node.cpus), f"{node.name} has {node.cpus:g} CPUs"
    if "GPU" not in asked:
        return by_cpus
    by_gpus = int(node.gpus) * trials_per_gpu(asked["GPU"]), f"{node.name} has {node.gpus:g} GPUs"
    return min(by_cpus, by_gpus, key=lambda limit: limit[0])
