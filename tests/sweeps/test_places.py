"""How many trials run at once, against placing them one by one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.config import Execution
from lmray.errors import PreflightError
from lmray.sweeps.places import Node, at_once, demand, room

NODES = st.lists(st.builds(Node, st.just("n"), st.integers(0, 9), st.integers(0, 3)), max_size=4)


def placed(execution: Execution, nodes: list[Node]) -> int:
    """Processes placed one after the other, each on the first node and GPU that has what it asks.

    In ten-thousandths, as Ray counts them.
    """
    asked = {kind: round(count * 10_000) for kind, count in demand(execution, nodes).items()}
    free = [(10_000 * int(n.cpus), [10_000] * int(n.gpus)) for n in nodes]
    count = 0
    for cpus, gpus in free:
        while cpus >= asked["CPU"]:
            if "GPU" in asked:
                fitting = [i for i, left in enumerate(gpus) if left >= asked["GPU"]]
                if not fitting:
                    break
                gpus[fitting[0]] -= asked["GPU"]
            cpus -= asked["CPU"]
            count += 1
    return count


@given(NODES, st.sampled_from(["auto", "cpu", "cuda"]), st.sampled_from([1, 0.6, 0.5, 1 / 3, 0.3]))
def test_room_is_what_can_be_placed(nodes: list[Node], device, share: float):
    execution = Execution(device=device, gpu_share=share)
    assert room(execution, nodes) == placed(execution, nodes)


@given(NODES, st.integers(1, 5))
def test_trials_of_several_workers_take_that_many_places(nodes: list[Node], workers: int):
    execution = Execution(workers=workers)
    possible = placed(execution, nodes) // workers
    if possible:
        assert at_once(execution, nodes) == possible
    else:
        with pytest.raises(PreflightError, match=f"execution.workers={workers}, but Ray has room"):
            at_once(execution, nodes)


def test_the_scarcer_of_cpus_and_gpus_limits_and_no_trial_straddles_gpus():
    third = Execution(gpu_share=1 / 3)
    assert at_once(third, [Node("a", 16, 2)]) == 6
    assert at_once(third, [Node("a", 4, 2)]) == 4
    assert at_once(Execution(gpu_share=0.6), [Node("a", 16, 2)]) == 2
    assert at_once(third, [Node("a", 2, 1), Node("b", 64, 0)]) == 2
    assert at_once(Execution(device="cpu"), [Node("a", 5, 1)]) == 5
    assert demand(Execution(device="cpu"), [Node("a", 5, 1)]) == {"CPU": 1}
    assert demand(third, [Node("a", 5, 1)]) == {"CPU": 1, "GPU": 0.3333}


def test_a_demand_that_nowhere_fits_is_refused_saying_what_is_short_where():
    nodes = [Node("10.0.0.1", 8, 1), Node("10.0.0.2", 1, 4)]
    said = (
        "execution.workers=4, but Ray has room for 2 at 1 CPU and 1 GPU each (10.0.0.2 has 1 CPUs, "
        "10.0.0.1 has 1 GPUs); lower execution.workers or add nodes"
    )
    with pytest.raises(PreflightError, match=f"^{re.escape(said)}$"):
        at_once(Execution(workers=4), nodes)
    with pytest.raises(PreflightError, match=r"1 CPU and 0\.5 GPU each \(c has 0 GPUs\); .*=cpu"):
        at_once(Execution(device="cuda", gpu_share=0.5), [Node("c", 8, 0)])
    with pytest.raises(PreflightError, match=r"execution\.workers=1, but .* 0 CPUs\); add nodes$"):
        at_once(Execution(), [Node("c", 0, 0)])
    many = [Node(str(k), 0, 0) for k in range(9)]
    with pytest.raises(PreflightError, match=r"5 has 0 CPUs, 5 more with no more\)"):
        at_once(Execution(), many)


HEAD = [Node("head", 0, 0)]
"""The nodes of a cluster whose workers are to come."""


def test_as_many_trials_as_stated_wait_for_the_nodes_of_a_cluster_that_grows():
    for device in ("cpu", "cuda"):
        execution = Execution(device=device, workers=2)
        assert at_once(execution, HEAD, stated=3, grows=lambda: True) == 3
    two = [*HEAD, Node("a", 2, 0)]
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
    seen = [*HEAD, Node("a", 8, 1)]
    assert at_once(Execution(), seen, stated=2, grows=lambda: True) == 2


def test_more_than_there_will_ever_be_room_for_is_refused():
    with pytest.raises(PreflightError, match=r"^execution\.workers=1, .*; add nodes$"):
        at_once(Execution(device="cpu"), HEAD, stated=2)
    said = (
        r"^--at-once=3 and execution.workers=1, .* room for 2 at .*; lower --at-once or add nodes"
    )
    with pytest.raises(PreflightError, match=said):
        at_once(Execution(device="cpu"), [Node("a", 2, 0)], stated=3)
