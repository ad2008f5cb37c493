"""How many trials run at once: as the scarcest of CPUs, GPUs and memory has room for, or as stated.

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
    memory: float
    """Bytes."""


Demand = dict[str, float]
"""What a process takes, in Ray's words: "CPU", "GPU", and "memory" in bytes."""


def demand(execution: Execution, nodes: Sequence[Node], memory: int = 0) -> Demand:
    """What each of a trial's processes takes: a CPU, and its share of a GPU or `memory` on a CPU.

    With execution.device=auto a GPU is asked for where any of the nodes has one. Memory is an
    estimate, 0 to leave it out: a process for which no node has enough gets one to itself.
    """
    on_gpu = {"cpu": False, "cuda": True, "auto": any(node.gpus for node in nodes)}
    if on_gpu[execution.device]:
        return {"CPU": 1, "GPU": parts(execution.gpu_share) / PARTS}
    largest = max((int(node.memory) for node in nodes if node.cpus >= 1), default=0)
    asked = memory if memory <= largest else largest // 2 + 1
    return {"CPU": 1, "memory": asked} if asked and largest else {"CPU": 1}


def room(asked: Demand, nodes: Sequence[Node]) -> int:
    """Processes that the nodes have room for at a time."""
    return sum(_fitting(node, asked) for node in nodes)


def at_once(
    execution: Execution,
    nodes: Sequence[Node],
    *,
    memory: int = 0,
    stated: int = 0,
    grows: Callable[[], bool] = never,
) -> int:
    """Trials that may run at a time: `stated`, or 0 for as many as the nodes have room for.

    Where none are stated, they are no more than as many as have `memory` bytes a process on a CPU,
    or one, for that is an estimate. More than the nodes have room for may be stated where the
    cluster `grows()`: the others wait for its next nodes, which come because they wait.

    Raises PreflightError if Ray would wait for ever, naming what each node has too little of, or if
    it does not show what the next nodes are to have.
    """
    found = room(demand(execution, nodes), nodes) // execution.workers
    if found and stated <= found:
        in_memory = room(demand(execution, nodes, memory), nodes) // execution.workers
        return stated or max(1, in_memory)
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


def demand_at_once(
    execution: Execution, nodes: Sequence[Node], memory: int, *, processes: int
) -> Demand:
    """As `demand`, of that many processes at a time.

    Without memory where it has no room for them: they were stated, or wait for nodes whose memory
    Ray need not know, and it makes none for who asks for some.
    """
    asked = demand(execution, nodes, memory)
    return asked if processes <= room(asked, nodes) else demand(execution, nodes)


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
        f"{room(asked, nodes)} at {each} each ({', '.join(shown[:_SHOWN] + more)}); "
        f"{_either(remedies)}"
    )


def _either(remedies: Sequence[str]) -> str:
    """One, or one of several."""
    *others, last = remedies
    return f"{', '.join(others)} or {last}" if others else last


def _fitting(node: Node, asked: Demand) -> int:
    """Processes that the node has room for."""
    fit, _ = _limit(node, asked)
    return min(fit, int(node.memory // asked["memory"])) if "memory" in asked else fit


def _limit(node: Node, asked: Demand) -> tuple[int, str]:
    """Processes by CPUs and GPUs, and what the node has too little of for more, in words."""
    by_cpus = int(node.cpus), f"{node.name} has {node.cpus:g} CPUs"
    if "GPU" not in asked:
        return by_cpus
    by_gpus = int(node.gpus) * trials_per_gpu(asked["GPU"]), f"{node.name} has {node.gpus:g} GPUs"
    return min(by_cpus, by_gpus, key=lambda limit: limit[0])
