from pathlib import Path

from lmray.config import Budget, Run
from lmray.runs.run_directory import MetricsWriter
from lmray.sweeps.ledger import Ledger
from lmray.sweeps.space import TO_THE_END, Space
from lmray.sweeps.standing import Standing, standings, trials_standing
from lmray.sweeps.sweep_directory import claim

BASE = Run(budget=Budget(tokens=32_768_000))
SPACE = Space("s", "", BASE, {"optim.lr": [1e-4, 1e-3, 1e-2, 0.1]}, (0,), TO_THE_END)


def test_a_trial_stands_where_the_ledger_or_its_newest_record_has_it(tmp_path: Path):
    directory, runs = tmp_path / "sweep", tmp_path / "runs"
    claim(directory, SPACE, "d")
    ledger = Ledger(directory / "ledger.jsonl")
    waiting, running, stopped, done = SPACE.trials("d")
    for trial in (running, stopped, done):
        ledger.append("started", trial.id, name=trial.name, changes=trial.changes)
    ledger.append("rung", running.id, rung=1000, tokens=1024, loss=6.0)
    ledger.append("stopped", stopped.id, rung=1000, tokens=1024, loss=9.0)
    ledger.append("done", done.id, tokens=32_768_000, loss=3.0)
    (runs / running.id).mkdir(parents=True)
    path = runs / running.id / "metrics.jsonl"
    writer = MetricsWriter(path)
    writer({"kind": "train", "step": 250, "tokens": 8_192_000, "loss": 5.0, "seconds": 60.0})
    writer.close()
    with path.open("a") as file:
        file.write('{"kind": "train", "tokens": 9')  # it is being written

    found = {each.trial.id: each for each in standings(directory, runs)}
    assert found[waiting.id] == Standing(waiting, "waiting", 0, None, 0, None)
    assert found[running.id] == Standing(running, "running", 8_192_000, 5.0, 1000, 180.0)
    assert found[stopped.id] == Standing(stopped, "stopped", 1024, 9.0, 1000, None)
    assert found[done.id] == Standing(done, "done", 32_768_000, 3.0, 0, None)


def test_what_asha_and_an_audit_do_to_a_trial_is_told_in_the_words_of_a_reader(tmp_path: Path):
    directory = tmp_path / "sweep"
    claim(directory, SPACE, "d")
    ledger = Ledger(directory / "ledger.jsonl")
    paused, promoted, retried, diverged = SPACE.trials("d")
    for trial in (paused, promoted):
        ledger.append("paused", trial.id, rung=1000, tokens=1000, loss=6.0)
    ledger.append("promoted", promoted.id, past=1000)
    ledger.append("failed", retried.id, error="it broke")
    ledger.append("retried", retried.id)
    ledger.append("diverged", diverged.id, rung=3000, tokens=1024, loss=None)
    ledger.append("audited", paused.id, status="done", tokens=32_768_000, loss=2.0)
    assert standings(directory, tmp_path / "runs") == [
        Standing(paused, "paused", 1000, 6.0, 1000, None),
        Standing(promoted, "running", 1000, 6.0, 1000, None),
        Standing(retried, "waiting", 0, None, 0, None),
        Standing(diverged, "diverged", 1024, None, 0, None),
    ]


def test_an_audit_under_way_shows_its_trials_as_running_until_they_are_audited(tmp_path: Path):
    directory = tmp_path / "sweep"
    claim(directory, SPACE, "d")
    ledger = Ledger(directory / "ledger.jsonl")
    over, under_way, other, done = SPACE.trials("d")
    for trial in (over, under_way, other):
        ledger.append("stopped", trial.id, rung=1000, tokens=1000, loss=6.0)
    ledger.append("done", done.id, tokens=32_768_000, loss=3.0)
    ledger.append("audited", over.id, status="done", tokens=32_768_000, loss=2.0)
    audited = [over.id, under_way.id]
    found = trials_standing(SPACE, "d", directory, tmp_path / "runs", audited)
    assert found == [
        Standing(over, "done", 32_768_000, 2.0, 1000, None),
        Standing(under_way, "running", 1000, 6.0, 1000, None),
        Standing(other, "stopped", 1000, 6.0, 1000, None),
        Standing(done, "done", 32_768_000, 3.0, 0, None),
    ]
