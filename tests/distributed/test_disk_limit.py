"""A sweep that passes its disk limit in the middle, and what becomes of it with a larger one."""

from pathlib import Path

import pytest

from lmray.config import Budget, Evaluation, Execution, Model
from lmray.runs.run_directory import RunDirectory
from lmray.sweeps.decisions.asha import Asha
from lmray.sweeps.disk_limit import occupied
from lmray.sweeps.ledger import read_events
from lmray.sweeps.losers import kept_bytes
from lmray.sweeps.space import Space
from tests.distributed.killing import Driver, decisions, undisturbed
from tests.small import small_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_it_ends_with_checkpoints_and_is_finished_with_the_ledger_of_one_never_stopped(
    small_dataset: Path, tmp_path: Path
):
    base = small_run(
        small_dataset,
        model=Model(vocab_size=300, context_length=16, num_layers=2, d_model=64, num_heads=2),
        budget=Budget(tokens=60 * 64),
        evaluation=Evaluation(interval_tokens=20 * 64, prefix_tokens=256),
        execution=Execution(
            device="cpu", threads=1, checkpoint_interval_steps=20, keep_checkpoints=1
        ),
    )
    asha = Asha(20 * 64, 2, "promote")
    rates = [1e-5, 1e-3, 1e-2, 3e-3, 2e-3]
    question = Space("limited", "", base, {"optim.lr": rates}, (0,), asha)
    limit = 1.5 * kept_bytes(base)
    ledger = tmp_path / "sweeps" / "killed" / "ledger.jsonl"

    options = (f"--max-disk={limit / 1e9}", "--yes", "--tokens-per-s=1e9")
    driver = Driver(question, tmp_path, *options)
    assert driver.process.wait(timeout=280) == 3
    said = (tmp_path / "driver.log").read_text()
    assert said.count("of disk and --max-disk=") == 1
    before = read_events(ledger)
    begun = {event.trial for event in before}
    assert 2 <= len(begun) < len(rates)
    assert not [event for event in before if event.kind == "failed"]
    runs = [RunDirectory(tmp_path / "runs" / trial) for trial in begun]
    assert occupied(run.path for run in runs) > limit
    assert {run.status for run in runs} <= {"preempted", "done", "absent"}

    Driver(question, tmp_path, "--max-disk=1").wait()
    after = read_events(ledger)
    assert after[: len(before)] == before
    assert decisions(ledger) == undisturbed(question, tmp_path)
    assert len({event.trial for event in after}) == len(rates)
