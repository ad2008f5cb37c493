"""Batch-size and sequence-length ramps against a walk over the steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.config import BatchSchedule, BatchShape, Data, Run, build, override, run_id
from lmray.config.batch_schedule import batch_schedule
from lmray.errors import UsageError


def changed(**data: object) -> Run:
    return build({"budget": {"tokens": 100_000}, "data": {"batch_size": 8, **data}}, source="test")


def shapes(run: Run) -> list[tuple[int, int, int]]:
    """(first step, sequences, length) of each stage."""
    return [(s.step, s.shape.sequences, s.shape.length) for s in run.batches.stages]


def test_a_ramp_of_batches_by_hand() -> None:
    run = changed(batch_ramp=[{"share": 0.1, "batch_size": 2}, {"share": 0.2, "batch_size": 4}])
    # 10,000 tokens at 512 a step are 19.5 steps: 20, of 10,240 tokens. From there to 30,000 it is
    # 19.3 steps of 1,024: 20, to 30,720. The 69,280 that are left pay for 33 steps of 2,048.
    assert shapes(run) == [(0, 2, 256), (20, 4, 256), (40, 8, 256)]
    assert (run.steps, run.training_tokens) == (73, 98_304)
    assert [run.batches.tokens(step) for step in (1, 20, 21, 40, 41)] == [
        512, 10_240, 11_264, 30_720, 32_768,
    ]  # fmt: skip


def test_a_ramp_of_lengths_keeps_sequences_or_tokens() -> None:
    ramp = [{"share": 0.5, "context_length": 64}]
    assert shapes(changed(length_ramp=ramp)) == [(0, 8, 64), (98, 8, 256)]
    in_tokens = changed(length_ramp=ramp, batch_unit="tokens", batch_size=2048)
    assert shapes(in_tokens) == [(0, 32, 64), (25, 8, 256)]
    assert in_tokens.steps == changed().steps


def test_both_ramps_together() -> None:
    run = changed(
        batch_ramp=[{"share": 0.1, "batch_size": 4}, {"share": 0.4, "batch_size": 6}],
        length_ramp=[{"share": 0.3, "context_length": 128}],
    )
    assert [shape[1:] for shape in shapes(run)] == [(4, 128), (6, 128), (6, 256), (8, 256)]


phases = st.lists(st.tuples(st.floats(0.001, 0.3), st.integers(1, 40)), max_size=3)


@given(batch=phases, length=phases, size=st.integers(1, 40), budget=st.integers(1_000, 200_000))
def test_every_step_is_the_one_that_a_walk_comes_to(batch, length, size, budget) -> None:
    data = Data(
        batch_size=size,
        batch_ramp=[{"share": share, "batch_size": value} for share, value in batch],
        length_ramp=[{"share": share, "context_length": value} for share, value in length],
    )
    schedule = batch_schedule(data, 40, budget)

    def at(plan: list[tuple[float, int]], rest: int, tokens: int) -> int:
        spent = 0.0
        for share, value in plan:
            spent += share
            if tokens < round(spent * budget):
                return value
        return rest

    step = tokens = 0
    while True:
        shape = BatchShape(at(batch, size, tokens), at(length, 40, tokens))
        assert schedule.tokens(step) == tokens
        if tokens + shape.tokens > budget:
            break
        assert schedule.shape(step) == shape
        assert shape.tokens % schedule.unit == 0
        step, tokens = step + 1, tokens + shape.tokens
    assert schedule.steps == step
    squares = sum(schedule.shape(s).length ** 2 for s in range(step))
    assert schedule.cost(step, lambda shape: shape.length**2) == squares
    assert schedule.affordable(squares, lambda shape: shape.length**2) == step
    assert step == 0 or schedule.affordable(squares - 1, lambda shape: shape.length**2) == step - 1


def test_without_ramps_every_step_is_alike() -> None:
    schedule = BatchSchedule([(0, BatchShape(8, 256))], 100_000)
    assert (schedule.steps, schedule.unit, len(schedule.stages)) == (48, 2048, 1)
    assert schedule.shape(10**9) == BatchShape(8, 256)
    assert schedule.affordable(3.5 * 7, lambda shape: 7) == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"batch_ramp": [{"share": 0.5}, {"share": 0.5}]},
            r"shares of data.batch_ramp make 1 and leave nothing to train at full size; make them",
        ),
        (
            {"length_ramp": [{"context_length": 512}]},
            r"context_length=512 and model.context_length=256 is the longest; lower the one or",
        ),
        (
            {"batch_unit": "tokens", "batch_size": 2048, "length_ramp": [{"context_length": 100}]},
            r"data.batch_size=2048 tokens is not divisible by model.context_length=100; make it",
        ),
        (
            {"batch_ramp": [{"batch_size": 0}]},
            r"data.batch_ramp.0.batch_size=0 is not a whole number of at least 1; write it as in",
        ),
        (
            {"batch_ramp": [{"share": 0.999, "batch_size": 1}]},
            r"budget ends after 390 steps, before the full batch that follows the ramps of data",
        ),
    ],
)
def test_impossible_ramps_are_refused(data, message) -> None:
    with pytest.raises(UsageError, match=message):
        changed(**data)


def test_a_ramp_that_another_limit_or_the_workers_forbid_is_refused() -> None:
    run = changed(batch_ramp=[{"share": 0.1, "batch_size": 3}])
    with pytest.raises(UsageError, match=r"budget ends after 9 steps, before the full batch that"):
        override(run, {"budget.steps": 9})
    with pytest.raises(UsageError, match=r"data.batch_size=3 is not divisible by execution.worker"):
        override(run, {"execution.workers": 2})


def test_two_spellings_of_one_ramp_have_one_id() -> None:
    one = changed(batch_ramp=[{"share": 0.1, "batch_size": 2}])
    same = [
        changed(batch_ramp=[{"share": 0.05, "batch_size": 2}, {"share": 0.05, "batch_size": 2}]),
        changed(batch_unit="tokens", batch_size=2048, batch_ramp=[{"batch_size": 512}]),
    ]
    assert {run_id(run, "d") for run in same} == {run_id(one, "d")} != {run_id(changed(), "d")}
    idle = changed(batch_ramp=[{"share": 0.1, "batch_size": 8}])
    assert run_id(idle, "d") == run_id(changed(), "d")
