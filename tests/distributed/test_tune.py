import os
import signal
import time
from pathlib import Path

import pytest
import ray

from lmray.config import Budget, Evaluation, Execution, Model
from lmray.dataset import open_splits
from lmray.distributed.tune import run_sweep
from lmray.errors import PreflightError
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from lmray.sweeps.answers.report import write_report
from lmray.sweeps.answers.tables import read_sweep
from lmray.sweeps.decisions.asha import TO_THE_END, Asha, Mode
from lmray.sweeps.ledger import Event, read_events
from lmray.sweeps.space import Space
from lmray.sweeps.starts import starts
from lmray.sweeps.sweep_directory import claim
from tests.distributed.killing import Driver, decisions, undisturbed
from tests.small import small_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RULE = Asha(20 * 64, 3)
BAD, GOOD, SLOW, TOO_FAST = 1e-5, 1e-2, 1e-3, 1.0


def space(
    tokens: Path,
    rates: list[float],
    *,
    workers: int = 1,
    steps: int = 180,
    asha: Asha = RULE,
) -> Space:
    base = small_run(
        tokens,
        # Deep and unclipped, so that a rate of 1 diverges.
        model=Model(vocab_size=300, context_length=16, num_layers=3, d_model=16, num_heads=2),
        budget=Budget(tokens=steps * 64),
        evaluation=Evaluation(interval_tokens=20 * 64, prefix_tokens=256),
        execution=Execution(device="cpu", workers=workers, threads=1, checkpoint_interval_steps=10),
    )
    return Space("test", "", base, {"optim.lr": rates}, (0,), asha)


def sweep(question: Space, tokens: Path, folder: Path) -> tuple[dict[str, str], list[Event]]:
    """Runs it; how each trial stands, by learning rate, and the ledger."""
    splits = open_splits(tokens)
    directory = folder / "sweeps" / "test"
    claim(directory, question, splits.digest)
    stands = run_sweep(question, splits, directory, folder / "runs")
    rates = {t.id: t.changes["optim.lr"] for t in question.trials(splits.digest)}
    return {rates[k]: v for k, v in stands.items()}, read_events(directory / "ledger.jsonl")


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("mode", ["stop", "promote"])
def test_bad_trials_are_stopped_the_diverged_are_results_the_best_is_done(
    small_dataset: Path, tmp_path: Path, mode: Mode
):
    rates = [BAD, SLOW, GOOD, 3e-3, 2e-5, 1e-4, TOO_FAST]
    question = space(small_dataset, rates, asha=Asha(20 * 64, 3, mode))
    stands, events = sweep(question, small_dataset, tmp_path)
    assert stands[GOOD] == "done"
    assert "stopped" in (stands[BAD], stands[2e-5])
    assert set(stands.values()) <= {"done", "stopped", "diverged"}
    for trial in question.trials(open_splits(small_dataset).digest):
        own = [event.kind for event in events if event.trial == trial.id]
        assert own[0] == "started"
        assert own[-1] == stands[trial.changes["optim.lr"]]
        assert RunDirectory(tmp_path / "runs" / trial.id).status == own[-1]
    result = read_sweep(tmp_path / "sweeps" / "test", tmp_path / "runs")
    assert result.best is not None
    assert result.best.trial.changes["optim.lr"] == GOOD
    assert result.trained_tokens < result.budget_tokens
    assert "\nStarts: " in write_report(result, tmp_path / "runs").read_text()
    waited = starts(events, tmp_path / "runs")
    assert waited is not None
    given = [event for event in events if event.kind in ("started", "promoted")]
    assert len(waited.waits_s) == len(given)
    assert 0 < waited.first_s < events[-1].facts["time"] - events[0].facts["time"]

    # A trial is an ordinary run: outside its sweep it gives the same curve.
    best = result.best.trial
    alone = execute(
        best.run, open_splits(small_dataset), tmp_path / "alone", report=lambda record: None
    )
    inside = RunDirectory(tmp_path / "runs" / best.id)
    for kind in ("train", "validation"):
        curves = [[(r["step"], r["loss"]) for r in each.records(kind)] for each in (alone, inside)]
        assert curves[0] == curves[1]

    # Asking again runs nothing.
    before = (tmp_path / "sweeps" / "test" / "ledger.jsonl").read_bytes()
    assert sweep(question, small_dataset, tmp_path)[0] == stands
    assert (tmp_path / "sweeps" / "test" / "ledger.jsonl").read_bytes() == before


@pytest.mark.usefixtures("local_ray")
def test_trials_of_two_workers_each_are_stopped_and_give_their_resources_back(
    small_dataset: Path, tmp_path: Path
):
    whole = ray.available_resources()["CPU"]
    question = space(small_dataset, [GOOD, BAD], workers=2, steps=60)
    stands, _ = sweep(question, small_dataset, tmp_path)
    assert set(stands.values()) <= {"done", "stopped"}
    assert "done" in stands.values()
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < whole:
        assert time.monotonic() < deadline, "a trial's workers still hold their CPUs"
        time.sleep(0.2)


@pytest.mark.usefixtures("local_ray")
def test_more_workers_than_the_cluster_has_room_for_are_refused(
    small_dataset: Path, tmp_path: Path
):
    question = space(small_dataset, [GOOD], workers=4)
    if ray.cluster_resources()["CPU"] >= 4:
        pytest.skip("this machine has room for four workers")
    with pytest.raises(PreflightError, match=r"execution\.workers=4, but Ray has room for"):
        sweep(question, small_dataset, tmp_path)


def test_a_sweep_whose_driver_and_node_are_killed_is_finished_with_the_ledger_of_one_never_killed(
    small_dataset: Path, tmp_path: Path
):
    asha = Asha(20 * 64, 2, "promote")
    question = space(small_dataset, [1e-5, 1e-3, 1e-2, 3e-3], steps=400, asha=asha)
    ledger = tmp_path / "sweeps" / "killed" / "ledger.jsonl"
    for moment in ("paused", "promoted"):
        driver = Driver(question, tmp_path)
        while not any(event.kind == moment for event in read_events(ledger)):
            driver.check()
            time.sleep(0.02)
        if moment == "paused":
            driver.kill()
        else:  # Ray's node and what trains on it; the driver notices that none is left
            for process in ("raylet/raylet ", "ray::ImplicitFunc"):
                os.kill(driver.processes(process)[0], signal.SIGKILL)
            assert driver.process.wait(timeout=240) == 1
        before = read_events(ledger)
    Driver(question, tmp_path).wait()
    after = read_events(ledger)
    assert after[: len(before)] == before, "a ledger is only ever appended to"
    assert decisions(ledger) == undisturbed(question, tmp_path)
    result = read_sweep(ledger.parent, tmp_path / "runs")
    assert {row.status for row in result.rows} == {"done", "stopped"}
    assert (ledger.parent / "report" / "report.md").exists()


def test_a_trial_that_fails_is_one_line_with_the_place_of_its_traceback(
    small_dataset: Path, tmp_path: Path
):
    question = space(small_dataset, [GOOD, SLOW], steps=300, asha=TO_THE_END)
    crashes, killed = question.trials(open_splits(small_dataset).digest)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / crashes.id).write_text("in the way")
    driver = Driver(question, tmp_path)
    while not RunDirectory(tmp_path / "runs" / killed.id).records("train"):
        driver.check()
        time.sleep(0.05)
    os.kill(driver.processes("ray::ImplicitFunc")[0], signal.SIGKILL)
    assert driver.process.wait(timeout=200) == 4
    said = (tmp_path / "driver.log").read_text()
    errors = tmp_path / "sweeps" / "killed" / "errors"
    told = [line for line in said.splitlines() if ": failed: " in line]
    assert len(told) == 3
    for line in told[:2]:
        assert "failed: FileExistsError: " in line
        assert line.endswith(f"; traceback: {errors / crashes.id}.txt")
    assert told[2].endswith(f": its process was lost; what Ray says: {errors / killed.id}.txt")
    assert (errors / f"{crashes.id}.txt").read_text().count("FileExistsError: ") >= 2
    assert "died" in (errors / f"{killed.id}.txt").read_text()
    for word in ("Traceback", "(raylet)", "ray::", "tune", "ERROR", "WARNING", "Trial"):
        assert word not in said
