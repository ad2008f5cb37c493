"""Sweeps whose trials are thought of while they run, and sweeps that are asked to stop."""

from pathlib import Path

import pytest

from lmray.dataset import open_splits
from lmray.distributed.tune import run_sweep
from lmray.runs.run_directory import RunDirectory
from lmray.storage import read_lines
from lmray.sweeps.axes import LogUniform
from lmray.sweeps.ledger import Event, read_events
from lmray.sweeps.search import Tpe
from lmray.sweeps.space import TO_THE_END, Asha, Space
from lmray.sweeps.sweep_directory import StopFile, add, addition, claim, read_space
from tests.small import small_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.usefixtures("local_ray")
def test_a_search_learns_from_the_ledger_and_takes_up_what_a_user_adds(
    small_dataset: Path, tmp_path: Path
):
    pytest.importorskip("optuna")
    splits, directory, runs = open_splits(small_dataset), tmp_path / "sweep", tmp_path / "runs"
    axes = {"optim.lr": LogUniform(1e-4, 1e-1)}
    search = Tpe(5, first=2)
    space = Space("s", "", small_run(small_dataset), axes, (0,), TO_THE_END, search)
    claim(directory, space, splits.digest)
    add(directory, addition(space, {"optim.lr": 0.02}), by="user", after=0)
    asked, _ = read_space(directory)
    stands = run_sweep(asked, splits, directory, runs)
    assert set(stands.values()) == {"done"}
    assert len(stands) == 5
    lines = read_lines(directory / "added.jsonl")
    assert [line["by"] for line in lines] == ["user", "search", "search"]
    found, _ = read_space(directory)
    assert {trial.id for trial in found.trials(splits.digest)} == set(stands)

    # A resumed one asks the same of the same ledger: there is nothing left to try.
    before = read_events(directory / "ledger.jsonl")
    assert run_sweep(found, splits, directory, runs) == stands
    assert read_events(directory / "ledger.jsonl") == before


@pytest.mark.usefixtures("local_ray")
def test_a_sweep_that_is_asked_to_stop_leaves_a_checkpoint_and_goes_on_from_it(
    small_dataset: Path, tmp_path: Path
):
    splits, directory, runs = open_splits(small_dataset), tmp_path / "sweep", tmp_path / "runs"
    # Longer than any machine takes to look for the file.
    base = small_run(
        small_dataset,
        budget={"tokens": 64_000_000},
        evaluation={"interval_tokens": 12_800, "prefix_tokens": 256},
        optim={"warmup_fraction": 0.0},
    )
    space = Space("s", "", base, {"optim.lr": [1e-3]}, (0,), Asha(12_800, 2))
    claim(directory, space, splits.digest)

    def stop(event: Event) -> None:
        if event.kind == "rung":
            StopFile.of(directory).ask()

    (trial,) = space.trials(splits.digest)
    steps = [0]
    for life in (1, 2):
        assert run_sweep(space, splits, directory, runs, observe=stop) == {trial.id: "rung"}
        facts = RunDirectory(runs / trial.id).facts
        assert facts["status"] == "preempted"
        assert len(facts["lives"]) == life
        assert facts["step"] > steps[-1]
        steps.append(facts["step"])
