"""How many trials run at once, against placing them one by one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.config import Execution
from lmray.errors import PreflightError
from lmray.machine import GB
from lmray.sweeps.places import Node, at_once, demand, demand_at_once, room

NODES = st.lists(
    st.builds(Node, st.just("n"), st.integers(0, 9), st.integers(0, 3), st.integers(1, 50)),
    max_size=4,
)
NEEDED = st.integers(0, 60)
"""Of the same unit as the memory of NODES."""
AMPLE = 1 << 50


def placed(asked: dict[str, float], nodes: list[Node]) -> int:
    """Processes placed one after the other, each on the first node and GPU that has what it asks.

    In ten-thousandths, as Ray counts them.
    """
    exact = {kind: round(count * 10_000) for kind, count in asked.items()}
    free = [(10_000 * int(n.cpus), [10_000] * int(n.gpus), 10_000 * int(n.memory)) for n in nodes]
    count = 0
    for cpus, gpus, memory in free:
        while cpus >= exact["CPU"] and memory >= exact.get("memory", 0):
            if "GPU" in exact:
                fitting = [i for i, left in enumerate(gpus) if left >= exact["GPU"]]
                if not fitting:
                    break
                gpus[fitting[0]] -= exact["GPU"]
            cpus -= exact["CPU"]
            memory -= exact.get("memory", 0)
            count += 1
    return count


@given(
    NODES,
    st.sampled_from(["auto", "cpu", "cuda"]),
    st.sampled_from([1, 0.6, 0.5, 1 / 3, 0.3]),
    NEEDED,
)
def test_room_is_what_can_be_placed(nodes: list[Node], device, share: float, needed: int):
    asked = demand(Execution(device=device, gpu_share=share), nodes, needed)
    assert room(asked, nodes) == placed(asked, nodes)


@given(NODES, st.integers(1, 5), NEEDED)
def test_trials_of_several_workers_take_that_many_places(
    nodes: list[Node], workers: int, needed: int
):
    execution = Execution(workers=workers)
    if placed(demand(execution, nodes), nodes) < workers:
        with pytest.raises(PreflightError, match=f"execution.workers={workers}, but Ray has room"):
            at_once(execution, nodes, memory=needed)
        return
    found = at_once(execution, nodes, memory=needed)
    asked = demand_at_once(execution, nodes, needed, processes=found * workers)
    assert found * workers <= placed(asked, nodes), "all of them have a place"
    assert "memory" in asked or found == 1 or "GPU" in asked or not needed


@given(NODES, NEEDED)
def test_trials_on_cpus_share_a_node_only_if_its_memory_holds_them(nodes: list[Node], needed: int):
    asked = demand(Execution(device="cpu"), nodes, needed)
    for node in nodes:
        together = room(asked, [node])
        if "memory" in asked:
            assert together * needed <= node.memory or together == 1
    if any(node.cpus for node in nodes):
        assert room(asked, nodes) >= 1, "the largest node has one"


def test_memory_limits_the_trials_of_a_cpu_that_nobody_stated():
    cpu, nodes = Execution(device="cpu"), [Node("a", 16, 0, 16 * GB), Node("b", 2, 0, 64 * GB)]
    assert at_once(cpu, nodes) == 18
    assert at_once(cpu, nodes, memory=GB) == 18
    assert at_once(cpu, nodes, memory=5 * GB) == 3 + 2
    assert at_once(cpu, nodes, memory=30 * GB) == 2, "the small node has none"
    assert at_once(cpu, nodes, memory=70 * GB) == 1, "more than there is: tried alone"
    assert at_once(Execution(device="cpu", workers=4), nodes[:1], memory=5 * GB) == 1
    assert at_once(Execution(), [Node("a", 16, 2, GB)], memory=AMPLE) == 2, "a GPU has its own"
    assert at_once(cpu, nodes, memory=5 * GB, stated=9) == 9


def test_memory_is_asked_for_where_it_is_there():
    execution, two = Execution(device="cpu"), [Node("a", 4, 0, 2 * GB), Node("b", 0, 0, 9 * GB)]
    asked = [demand_at_once(execution, two, GB, processes=count) for count in (1, 2, 3)]
    assert asked == [{"CPU": 1, "memory": GB}] * 2 + [{"CPU": 1}], "three were stated"
    alone = {"CPU": 1, "memory": GB + 1}
    assert demand_at_once(execution, two, 3 * GB, processes=1) == alone, "b runs no trials"
    assert demand_at_once(execution, two[1:], GB, processes=1) == {"CPU": 1}, "nodes are to come"


def test_the_scarcer_of_cpus_and_gpus_limits_and_no_trial_straddles_gpus():
    third = Execution(gpu_share=1 / 3)
    assert at_once(third, [Node("a", 16, 2, AMPLE)]) == 6
    assert at_once(third, [Node("a", 4, 2, AMPLE)]) == 4
    assert at_once(Execution(gpu_share=0.6), [Node("a", 16, 2, AMPLE)]) == 2
    assert at_once(third, [Node("a", 2, 1, AMPLE), Node("b", 64, 0, AMPLE)]) == 2
    assert at_once(Execution(device="cpu"), [Node("a", 5, 1, AMPLE)]) == 5
    assert demand(Execution(device="cpu"), [Node("a", 5, 1, AMPLE)]) == {"CPU": 1}
    assert demand(third, [Node("a", 5, 1, AMPLE)]) == {"CPU": 1, "GPU": 0.3333}


def test_a_demand_that_nowhere_fits_is_refused_saying_what_is_short_where():
    nodes = [Node("10.0.0.1", 8, 1, AMPLE), Node("10.0.0.2", 1, 4, AMPLE)]
    said = (
        "execution.workers=4, but Ray has room for 2 at 1 CPU and 1 GPU each (10.0.0.2 has 1 CPUs, "
        "10.0.0.1 has 1 GPUs); lower execution.workers or add nodes"
    )
    with pytest.raises(PreflightError, match=f"^{re.escape(said)}$"):
        at_once(Execution(workers=4), nodes)
    with pytest.raises(PreflightError, match=r"1 CPU and 0\.5 GPU each \(c has 0 GPUs\); .*=cpu"):
        at_once(Execution(device="cuda", gpu_share=0.5), [Node("c", 8, 0, AMPLE)])
    with pytest.raises(PreflightError, match=r"execution\.workers=1, but .* 0 CPUs\); add nodes$"):
        at_once(Execution(), [Node("c", 0, 0, AMPLE)])
    many = [Node(str(k), 0, 0, AMPLE) for k in range(9)]
    with pytest.raises(PreflightError, match=r"5 has 0 CPUs, 5 more with no more\)"):
        at_once(Execution(), many)


HEAD = [Node("head", 0, 0, AMPLE)]
"""The nodes of a cluster whose workers are to come."""


def test_as_many_trials_as_stated_wait_for_the_nodes_of_a_cluster_that_grows():
    for device in ("cpu", "cuda"):
        execution = Execution(device=device, workers=2)
        assert at_once(execution, HEAD, stated=3, grows=lambda: True) == 3
    two = [*HEAD, Node("a", 2, 0, AMPLE)]
    assert at_once(Execution(device="cpu"), two, stated=3, grows=lambda: True) == 3
    assert at_once(Execution(), two, stated=1, grows=lambda: True) == 1
    assert at_once(Execution(), two, grows=lambda: True) == 2
    assert demand(Execution(device="cuda", gpu_share=0.5), HEAD) == {"CPU": 1, "GPU": 0.5}
    assert demand(Execution(device="cpu"), HEAD) == {"CPU": 1}


def test_a_cluster_that_grows_wants_to_be_told_how_far_and_for_what():
    remedy = "say --at-once N, as many trials as may wait for nodes of a cluster that grows"
    said = f"Ray has room for 0 at 1 CPU each (head has 0 CPUs); {remedy}"
    with pytest.raises(PreflightError, match=re.escape(said)):
        at_once(Execution(), HEAD, grows=lambda: True)
    said = f"execution.workers=2, .*; lower execution.workers, set execution.device=cpu or {remedy}"
    with pytest.raises(PreflightError, match=said):
        at_once(Execution(device="cuda", workers=2), HEAD, grows=lambda: True)
    said = "execution.device=auto, .* 0 of 2 trials .*; set execution.device=cuda or .*=cpu$"
    with pytest.raises(PreflightError, match=said):
        at_once(Execution(), HEAD, stated=2, grows=lambda: True)
    seen = [*HEAD, Node("a", 8, 1, AMPLE)]
    assert at_once(Execution(), seen, stated=2, grows=lambda: True) == 2


def test_more_than_there_will_ever_be_room_for_is_refused():
    with pytest.raises(PreflightError, match=r"^execution\.workers=1, .*; add nodes$"):
        at_once(Execution(device="cpu"), HEAD, stated=2)
    said = (
        r"^--at-once=3 and execution.workers=1, .* room for 2 at .*; lower --at-once or add nodes"
    )
    with pytest.raises(PreflightError, match=said):
        at_once(Execution(device="cpu"), [Node("a", 2, 0, AMPLE)], stated=3)
