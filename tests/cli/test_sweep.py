"""What `lmray sweep` says and refuses before anything runs."""

import json
import sys
import time
from pathlib import Path
from typing import get_args

import pytest

from lmray.cli.main import main
from lmray.cli.sweep_live import lines, standings_table, tally
from lmray.sweeps.space import Space
from lmray.sweeps.standing import trials_standing
from lmray.sweeps.sweep_directory import read_space
from tests.folder_store import use_folder

FILE = """'''Hypothesis: none.'''
from pathlib import Path
from lmray.sweeps.space import TO_THE_END
from tests.small import small_run
BASE = small_run(Path({tokens!r}))
SPACE = {{"optim.lr": [1e-3, 1e-2], "data.batch_size": [4, 8]}}
SEEDS = [0, 1]
ASHA = TO_THE_END
"""


@pytest.fixture
def asks(small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Runs `lmray sweep` in this process; returns its exit code, stdout and stderr."""
    (tmp_path / "mine.py").write_text(FILE.format(tokens=str(small_dataset)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("LMRAY_ROOT", raising=False)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lmray", "sweep", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, " ".join(err.split())

    return call


def test_the_price_is_told_without_starting_anything(asks, tmp_path: Path):
    code, out, _ = asks("price", "mine.py", "--tokens-per-s", "1000", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["trials"], found["tokens"], found["refused"]) == (8, 8 * 1280, [])
    assert not (tmp_path / "lmray-out").exists()
    code, out, _ = asks("price", "mine.py", "--tokens-per-s", "1000")
    assert out.startswith("8 trials, 10,240 tokens")


def test_a_sweep_beyond_its_limit_is_refused_and_leaves_nothing(asks, tmp_path: Path):
    code, _, err = asks("run", "mine.py", "--tokens-per-s", "0.1", "--max-hours", "2")
    assert code == 3
    assert "8 trials" in err
    assert "and --max-hours=2; try fewer values or tokens, raise --max-hours, or say --yes" in err
    assert not (tmp_path / "lmray-out").exists()


def test_a_price_for_gpus_elsewhere_needs_none_here_but_their_speed(asks):
    stated = ("--tokens-per-s", "1000", "--at-once", "4", "--json")
    code, out, _ = asks("price", "mine.py", "execution.device=cuda", *stated)
    assert code == 0
    assert json.loads(out)["at_once"] == 4
    _, alone, _ = asks("price", "mine.py", "--tokens-per-s", "1000", "--at-once", "1", "--json")
    assert json.loads(out)["hours"] == pytest.approx(json.loads(alone)["hours"] / 4)


def test_a_sweep_that_may_take_more_disk_than_it_is_allowed_is_refused(asks, tmp_path: Path):
    code, _, err = asks("run", "mine.py", "--tokens-per-s", "1e9", "--max-disk", "1e-4")
    assert code == 3
    assert "if no trial is stopped and --max-disk=0.0001; lower execution.keep_checkpoints" in err
    assert "say --yes: a stopped trial leaves" in err
    assert not (tmp_path / "lmray-out").exists()


def test_a_sweep_that_is_beyond_its_disk_is_not_gone_on_with(asks, tmp_path: Path):
    from lmray.sweeps.ledger import Ledger, read_events

    space = claimed(tmp_path)
    ledger = tmp_path / "lmray-out" / "sweeps" / "mine" / "ledger.jsonl"
    (first, *_) = space.trials("d")
    Ledger(ledger).append("started", first.id)
    run = tmp_path / "lmray-out" / "runs" / first.id
    run.mkdir(parents=True)
    (run / "model").write_bytes(b"1" * 200_000)
    before = read_events(ledger)
    code, _, err = asks("resume", "mine", "--max-disk", "1e-4")
    assert code == 3
    assert err.startswith("error: the sweep's runs take 0.0002")
    assert "--max-disk=0.0001, so no more trials begin" in err
    assert read_events(ledger) == before


def test_combinations_that_do_not_fit_are_told_with_their_reason(asks):
    code, out, _ = asks("price", "mine.py", "--tokens-per-s", "9", "--memory-gb", "7e-4")
    assert code == 0
    assert "4 trials" in out
    assert "not tried: lr=0.001 batch_size=8: takes" in out


def claimed(tmp_path: Path) -> Space:
    from lmray.dataset import open_splits
    from lmray.sweeps.space_file import load_space
    from lmray.sweeps.sweep_directory import claim

    space = load_space("mine.py")
    claim(
        tmp_path / "lmray-out" / "sweeps" / "mine",
        space,
        open_splits(space.base.data.tokens).digest,
    )
    return space


def test_combinations_are_added_to_a_sweep_and_shown_by_status(asks, tmp_path: Path):
    claimed(tmp_path)
    assert asks("add", "mine", "optim.lr=0.5") == (
        0,
        "",
        "added lr=0.5 with seeds 0, 1",
    )
    code, out, _ = asks("status", "mine", "--json")
    trials = json.loads(out)["trials"]
    assert code == 0
    assert [each["trial"] for each in trials[-2:]] == [
        {"optim.lr": 0.5, "seed": 0},
        {"optim.lr": 0.5, "seed": 1},
    ]
    assert asks("status", "mine")[1].splitlines()[-1] == "10 trials: 10 waiting"
    code, _, err = asks("add", "mine", "optim.lr=0.5")
    assert (code, "is tried already" in err) == (2, True)
    code, _, err = asks("add", "mine", "optim.beta1=0.5")
    assert (code, "unknown key 'optim.beta1'" in err) == (2, True)


def test_a_sweep_that_nobody_runs_cannot_be_stopped_and_one_that_runs_is_asked(
    asks, tmp_path: Path
):
    from lmray.storage import locked
    from lmray.sweeps.sweep_directory import StopFile

    claimed(tmp_path)
    directory = tmp_path / "lmray-out" / "sweeps" / "mine"
    code, _, err = asks("stop", "mine")
    assert (code, "there is nothing to stop" in err) == (3, True)
    assert not StopFile.of(directory)()
    with locked(directory, "busy"):
        code, _, err = asks("stop", "mine")
    assert (code, err.startswith("asked")) == (0, True)
    assert "`lmray sweep resume` goes on" in err
    assert StopFile.of(directory)()


def test_what_is_added_must_fit_the_data(asks, tmp_path: Path):
    with (tmp_path / "mine.py").open("a") as file:
        file.write("SPACE = {'model.vocab_size': [300]}\n")
    claimed(tmp_path)
    code, _, err = asks("add", "mine", "model.vocab_size=301")
    assert (code, "has 300 ids" in err) == (3, True)
    assert not (tmp_path / "lmray-out" / "sweeps" / "mine" / "added.jsonl").exists()


def test_at_a_url_a_sweep_is_stopped_from_anywhere_and_added_to_where_it_runs(
    asks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from lmray import remote
    from lmray.dataset import open_splits
    from lmray.storage import locked
    from lmray.sweeps.space_file import load_space
    from lmray.sweeps.sweep_directory import StopFile, additions, claim

    use_folder(tmp_path / "store", monkeypatch)
    url = "s3://bucket/out"
    monkeypatch.setenv("LMRAY_CACHE", str(tmp_path / "driver"))
    directory = remote.cached(f"{url}/sweeps/mine")
    space = load_space("mine.py")
    claim(directory, space, open_splits(space.base.data.tokens).digest)
    remote.publish(directory)
    with locked(directory, "busy"):
        monkeypatch.setenv("LMRAY_CACHE", str(tmp_path / "other"))
        code, _, err = asks("add", "mine", "optim.lr=0.5", "--root", url)
        assert (code, "is not finished and nobody on this machine runs it" in err) == (3, True)
        assert asks("stop", "mine", "--root", url)[0] == 0
        monkeypatch.setenv("LMRAY_CACHE", str(tmp_path / "driver"))
        assert StopFile.of(directory)()
        assert asks("add", "mine", "optim.lr=0.5", "--root", url)[0] == 0
    assert additions(directory) == ({"optim.lr": 0.5},)


def test_what_is_added_must_fit_the_memory(asks, tmp_path: Path):
    with (tmp_path / "mine.py").open("a") as file:
        file.write("MEMORY_GB = 1e-3\n")
    claimed(tmp_path)
    code, _, err = asks("add", "mine", "data.batch_size=80")
    assert (code, "is not to be tried: takes" in err) == (2, True)
    assert not (tmp_path / "lmray-out" / "sweeps" / "mine" / "added.jsonl").exists()


@pytest.mark.filterwarnings("ignore:Attempting to set identical")  # nothing was measured
def test_after_a_kill_at_the_very_end_resume_closes_the_runs_but_not_those_of_an_audit(
    asks, tmp_path: Path
):
    from lmray.runs.run_directory import RunDirectory
    from lmray.sweeps.ledger import Ledger

    space, now = claimed(tmp_path), time.time()
    directory, runs = (tmp_path / "lmray-out" / name for name in ("sweeps/mine", "runs"))
    ledger = Ledger(directory / "ledger.jsonl")
    killed, audited, *others = space.trials(read_space(directory)[1])
    for trial in (killed, audited, *others):
        at = {"tokens": 640, "step": 10, "loss": 5.0, "seconds": 1.0}
        # The audited one's run has begun after that.
        ledger.append("stopped", trial.id, **at, time=now + (-99 if trial == audited else 99))
        run = RunDirectory(runs / trial.id)
        run.begin(trial.run, trial.id, {"digest": "d", "path": ""})
        run.finish("preempted", {})
        (run.checkpoints / "step-00000010").mkdir(parents=True)
        for name in ("model", "optimizer"):
            (run.checkpoints / "step-00000010" / f"{name}.safetensors").write_bytes(b"1")
    assert asks("resume", "mine")[0] == 0
    for trial, status, kept in ((killed, "stopped", 0), (audited, "preempted", 2)):
        run = RunDirectory(runs / trial.id)
        assert run.status == status
        assert len(list(run.checkpoints.rglob("*.safetensors"))) == kept


def test_a_name_of_a_space_that_is_misspelt_is_refused(asks, tmp_path: Path):
    file = tmp_path / "mine.py"
    text = file.read_text()
    for wrong, right in (("LOSER", "LOSERS"), ("MEMORY_GBS", "MEMORY_GB")):
        file.write_text(f"{text}{wrong} = 1\n")
        code, _, err = asks("price", "mine.py", "--tokens-per-s", "1000")
        assert code == 2
        assert f"defines {wrong}, which means nothing; write {right}, or rename it" in err


def test_stopping_an_audit_names_the_audit(asks, tmp_path: Path):
    from lmray.storage import locked
    from lmray.sweeps.ledger import Ledger
    from lmray.sweeps.sweep_directory import read_space

    claimed(tmp_path)
    directory = tmp_path / "lmray-out" / "sweeps" / "mine"
    space, digest = read_space(directory)
    for trial in space.trials(digest):
        Ledger(directory / "ledger.jsonl").append("stopped", trial.id)
    with locked(directory, "busy"):
        _, _, err = asks("stop", "mine")
    assert "`lmray sweep audit` with the same options goes on" in err


def test_the_live_table_keeps_what_runs_when_there_is_no_room(asks, tmp_path: Path):
    from lmray.sweeps.ledger import Ledger

    space = claimed(tmp_path)
    directory = tmp_path / "lmray-out" / "sweeps" / "mine"
    trials = space.trials("d")
    ledger = Ledger(directory / "ledger.jsonl")
    ledger.append("started", trials[6].id, name="", changes={})
    found = trials_standing(space, "d", directory, tmp_path)
    assert tally(found) == "8 trials: 1 running, 7 waiting"
    table = standings_table(space, found, most=1)
    assert table.row_count == 1
    assert list(table.columns[0].cells) == [trials[6].id[:6]]


def test_elsewhere_than_on_a_terminal_each_event_is_a_line(
    asks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    from lmray.sweeps.ledger import Kind, Ledger

    monkeypatch.setenv("COLUMNS", "40")
    path = tmp_path / "ledger.jsonl"
    Ledger(path).append("started", "b", name="lr=0.1 seed=0", changes={})
    ledger = Ledger(path, observe=lines(tmp_path))
    ledger.append("started", "a", name="lr=0.01 seed=0", changes={})
    ledger.append("failed", "a", error="ValueError: two\nlines", lost=False, saved=0)
    ledger.append("started", "a")
    ledger.append("rung", "a", rung=1000, loss=3.0)
    ledger.append("paused", "a", rung=3000, loss=2.5)
    ledger.append("promoted", "a", past=3000)
    ledger.append("done", "a", loss=2.25)
    ledger.append("diverged", "b", tokens=2000, loss=None)
    ledger.append("retried", "b")
    ledger.append("stopped", "b", rung=3000, loss=None)
    ledger.append("audited", "b", status="done", loss=2.0)
    told = capsys.readouterr().err.splitlines()
    assert {event.kind for event in ledger.events()} == set(get_args(Kind)), "one of each"
    assert told == [
        "lr=0.01 seed=0: started",
        "lr=0.01 seed=0: failed: ValueError: two lines",
        "lr=0.01 seed=0: started again",
        "lr=0.01 seed=0: 1,000 tokens, loss 3.0000, goes on",
        "lr=0.01 seed=0: 3,000 tokens, loss 2.5000, paused",
        "lr=0.01 seed=0: goes on past 3,000 tokens",
        "lr=0.01 seed=0: done, loss 2.2500",
        "lr=0.1 seed=0: diverged at 2,000 tokens",
        "lr=0.1 seed=0: to be run again",
        "lr=0.1 seed=0: 3,000 tokens, loss not finite, stopped",
        "lr=0.1 seed=0: audited, done, loss 2.0000",
    ]
