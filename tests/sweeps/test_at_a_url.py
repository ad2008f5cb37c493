"""A sweep at a URL: its trials and its driver are on nodes with caches of their own."""

from pathlib import Path

import pytest

from lmray import remote
from lmray.errors import LmrayError
from lmray.sweeps import sweep_directory
from lmray.sweeps.decisions.verdicts import Verdicts
from lmray.sweeps.ledger import Ledger, read_events
from lmray.sweeps.sweep_directory import StopFile, begin
from tests.folder_store import use_folder

SWEEP = "s3://bucket/out/sweeps/rates"


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The sweep's directory on the driver's node and on a trial's."""
    use_folder(tmp_path / "store", monkeypatch)
    places = {}
    for node in ("driver", "trial"):
        monkeypatch.setenv("LMRAY_CACHE", str(tmp_path / node))
        places[node] = remote.cached(SWEEP)
        places[node].mkdir(parents=True)
    return places


@pytest.mark.parametrize(("verdict", "leaves"), [("rung", False), ("stopped", True)])
def test_a_trial_on_another_node_reads_its_verdict(
    nodes: dict[str, Path], verdict: str, leaves: bool
):
    ledger = Ledger(nodes["driver"] / "ledger.jsonl")
    ledger.append("started", "t", name="t")
    told = []

    def tell(record: dict) -> None:
        told.append(record["tokens"])
        ledger.append(verdict, "t", rung=64, loss=1.0)  # pyrefly: ignore

    verdicts = Verdicts(nodes["trial"] / "ledger.jsonl", "t", [64], tell)
    verdicts({"kind": "validation", "scope": "prefix", "tokens": 64})
    assert told == [64]
    assert verdicts.interrupted() is leaves
    assert read_events(nodes["trial"] / "ledger.jsonl") == ledger.events()


def test_a_trial_that_is_told_that_it_will_end_waits_for_no_verdict(tmp_path: Path):
    ledger, told = Ledger(tmp_path / "ledger.jsonl"), []
    ledger.append("started", "t", name="t")
    verdicts = Verdicts(tmp_path / "ledger.jsonl", "t", [64], told.append, lambda: bool(told))
    verdicts({"kind": "validation", "scope": "prefix", "tokens": 64})
    assert [record["tokens"] for record in told] == [64]
    assert not verdicts.interrupted()


def test_a_wish_to_stop_reaches_trials_on_other_nodes_until_the_sweep_begins_again(
    nodes: dict[str, Path],
):
    StopFile.of(nodes["driver"]).ask()
    assert StopFile.of(nodes["trial"])()
    begin(nodes["driver"])
    assert not StopFile.of(nodes["driver"])()
    assert not StopFile.of(nodes["trial"])()


@pytest.mark.parametrize("asked", [False, True])
def test_a_url_that_does_not_answer_once_leaves_the_last_answer(
    nodes: dict[str, Path], monkeypatch: pytest.MonkeyPatch, asked: bool
):
    monkeypatch.setattr(sweep_directory, "_ASK_S", 0.0)
    stop = StopFile.of(nodes["trial"])
    if asked:
        StopFile.of(nodes["driver"]).ask()
    assert stop() is asked
    reached = remote._file_system

    def cut(bucket: str, endpoint: str) -> None:
        raise OSError("connection reset by peer")

    monkeypatch.setattr(remote, "_file_system", cut)
    with pytest.raises(LmrayError):
        remote.exists(stop.path)
    assert stop() is asked
    monkeypatch.setattr(remote, "_file_system", reached)
    StopFile.of(nodes["driver"]).ask()
    assert stop()
