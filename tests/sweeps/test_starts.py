"""Seconds to first steps, from planted ledgers and runs."""

import json
from pathlib import Path

import pytest

from lmray.runs.run_directory import RunDirectory
from lmray.storage import write_json
from lmray.sweeps.answers.report import write_report
from lmray.sweeps.answers.tables import read_sweep
from lmray.sweeps.ledger import Event, Kind, read_events
from lmray.sweeps.starts import starts
from tests.sweeps.answers.test_report import ONE_SEED, planted


def events(*lines: tuple[Kind, str, float]) -> list[Event]:
    return [Event(kind, trial, {"time": time}) for kind, trial, time in lines]


def lives(runs: Path, trial: str, *moments: float | None) -> None:
    """A run with a life for each moment of a first step; None for one that does not say."""
    found = [{} if moment is None else {"first_step_at": moment} for moment in moments]
    write_json(runs / trial / "run.json", {"status": "running", "lives": found})


def test_first_steps_are_counted_from_the_event_that_gave_the_place(tmp_path: Path):
    ledger = events(
        ("started", "a", 100.0),
        ("started", "b", 100.5),
        ("paused", "a", 120.0),
        ("started", "c", 120.0),
        ("promoted", "a", 130.0),
        ("failed", "b", 131.0),
        ("started", "b", 131.0),
    )
    lives(tmp_path, "a", 112.0, 130.5)
    lives(tmp_path, "b", 110.5, 133.0)
    lives(tmp_path, "c", 120.25)
    found = starts(ledger, tmp_path)
    assert found is not None
    assert found.first_s == 10.5
    assert found.waits_s == (12.0, 10.0, 0.25, 0.5, 2.0)
    assert found.sentence() == (
        "10.50 s from the sweep's first event to the first step of a trial; 2.00 s from a trial's "
        "place to its first step there (median, n = 5)"
    )


def test_what_did_not_begin_at_a_place_is_not_counted(tmp_path: Path):
    ledger = events(
        ("started", "elsewhere", 100.0),
        ("started", "killed", 100.0),
        ("started", "old", 100.0),
        ("started", "failed", 100.0),
        ("done", "elsewhere", 101.0),
        ("failed", "failed", 104.0),
        ("audited", "elsewhere", 200.0),
    )
    lives(tmp_path, "elsewhere", 50.0, 150.0)  # by another sweep before, and by an audit
    lives(tmp_path, "killed", 103.0, 180.0)  # no event tells of the second life
    lives(tmp_path, "old", None)
    found = starts(ledger, tmp_path)
    assert found is not None
    assert (found.first_s, found.waits_s) == (3.0, (3.0,))
    assert starts(events(("started", "old", 100.0)), tmp_path) is None
    assert starts([], tmp_path) is None


@pytest.mark.parametrize("known", [True, False])
def test_a_report_states_what_starting_took_where_the_runs_say_it(tmp_path: Path, known: bool):
    directory, runs = planted(tmp_path, ONE_SEED)
    ledger = directory / "ledger.jsonl"
    lines = [json.loads(line) | {"time": 7.0 + n} for n, line in enumerate(ledger.open())]
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for event in read_events(ledger):
        if known and event.kind == "started":
            RunDirectory(runs / event.trial).note({"first_step_at": event.facts["time"] + 0.75})
    report = write_report(read_sweep(directory, runs), runs)
    for path in (report, report.with_suffix(".html")):
        text = path.read_text()
        assert ("Starts: 0.75 s from the sweep" in text) == known
        assert ("0.75 s from a trial" in text) == known
