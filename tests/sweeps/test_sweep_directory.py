"""What several processes do to one sweep's directory at a time."""

import multiprocessing
from pathlib import Path

from lmray.storage import read_lines
from lmray.sweeps.sweep_directory import add, additions

EACH = 60


def _add_many(directory: Path, who: str) -> None:
    """As `lmray sweep add` and a search do: look, choose, add, or else try anew."""
    for number in range(EACH):
        while True:
            known = additions(directory)
            if add(directory, {who: number}, by="user", after=len(known)):
                break


def test_two_processes_that_add_lose_nothing_and_each_knows_what_came_before_its_own(
    tmp_path: Path,
):
    (tmp_path / "added.jsonl").write_bytes(b'{"combination":{"a"')  # as kill -9 leaves it
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=_add_many, args=(tmp_path, who)) for who in "xy"]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    found = [
        next(iter(line["combination"].items())) for line in read_lines(tmp_path / "added.jsonl")
    ]
    assert len(found) == 2 * EACH
    for who in "xy":
        assert [number for name, number in found if name == who] == list(range(EACH))


def test_what_was_chosen_without_knowing_the_last_addition_is_not_added(tmp_path: Path):
    assert add(tmp_path, {"optim.lr": 0.5}, by="user", after=0)
    assert not add(tmp_path, {"optim.lr": 0.5}, by="search", after=0)
    assert add(tmp_path, {"optim.lr": 0.25}, by="search", after=1)
    assert additions(tmp_path) == ({"optim.lr": 0.5}, {"optim.lr": 0.25})
