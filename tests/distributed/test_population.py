from pathlib import Path

import pytest

from lmray.config import Budget, Evaluation, Execution, Optim, override
from lmray.dataset import open_splits
from lmray.distributed.tune import run_sweep
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from lmray.sweeps.answers.lineage import ancestry, generations, took_over
from lmray.sweeps.answers.report import write_report
from lmray.sweeps.answers.tables import read_sweep
from lmray.sweeps.axes import LogUniform
from lmray.sweeps.search import Population
from lmray.sweeps.space import TO_THE_END, Space
from lmray.sweeps.sweep_directory import claim, is_closed, read_space
from lmray.sweeps.turns import Turns
from tests.runs.test_kills import measured
from tests.small import small_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STEP = 64


@pytest.mark.usefixtures("local_ray")
def test_a_population_trains_each_generation_from_the_states_of_the_one_before(
    small_dataset: Path, tmp_path: Path
):
    base = small_run(
        small_dataset,
        optim=Optim(schedule="constant", warmup_fraction=0.0),
        budget=Budget(tokens=3 * 20 * STEP),
        evaluation=Evaluation(interval_tokens=10 * STEP, prefix_tokens=256),
        execution=Execution(device="cpu", threads=1, keep_checkpoints=1),
    )
    axes = {"optim.lr": LogUniform(1e-4, 1.0)}
    # Whoever loses keeps nothing, but no member is stopped, so that all ends are there.
    asked = Space(
        "pbt", "", base, axes, (0,), TO_THE_END, Population(3, 3, factor=2.0), losers="nothing"
    )
    splits, runs = open_splits(small_dataset), tmp_path / "runs"
    directory = tmp_path / "sweeps" / "pbt"
    claim(directory, asked, splits.digest)
    stands = run_sweep(asked, splits, directory, runs)
    assert len(stands) == 9
    assert set(stands.values()) <= {"done", "diverged"}
    space, digest = read_space(directory)
    assert is_closed(directory, space, digest)

    sweep = read_sweep(directory, runs)
    assert sweep.best is not None
    for place, members in enumerate(generations(sweep)):
        for row in members:
            facts = RunDirectory(runs / row.trial.id).facts
            assert facts["lives"][0]["began_at_step"] == 20 * place
            if row.status == "done":
                assert (facts["step"], row.own_tokens) == (20 * (place + 1), 20 * STEP)
    assert len(took_over(sweep)) >= 2
    assert write_report(sweep, runs).exists()

    # A lineage is trained again alone, run after run, to the same last bit; where nobody took over
    # it is the run that was trained straight through.
    chain = ancestry(sweep)
    assert len(chain) == 3
    for row in chain:
        alone = execute(row.trial.run, splits, tmp_path / "alone", report=lambda record: None)
        assert measured(alone) == measured(RunDirectory(runs / row.trial.id))
    on = next(r for r in generations(sweep)[1] if r.trial.id not in took_over(sweep))
    whole = override(on.trial.run, {"begins_from": "none"})
    straight = execute(whole, splits, tmp_path / "straight", report=lambda record: None)
    own = measured(RunDirectory(runs / on.trial.id))
    assert own == [line for line in measured(straight) if line[2] > 20]

    # Asking again runs nothing, and chooses nothing else.
    ledger = (directory / "ledger.jsonl").read_bytes()
    assert run_sweep(space, splits, directory, runs) == stands
    assert (directory / "ledger.jsonl").read_bytes() == ledger
    assert len(Turns(space, digest, directory, lambda: False).trials()) == 9
