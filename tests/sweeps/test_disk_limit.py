"""What runs take of the disk, against du, and when that is too much."""

import math
import os
import subprocess
from pathlib import Path

import pytest

from lmray.errors import LimitError, UsageError
from lmray.sweeps.disk_limit import DiskLimit, occupied
from lmray.sweeps.ledger import Ledger


def du(*folders: Path) -> int:
    """The total of GNU du, in bytes of blocks."""
    words = ["du", "--summarize", "--total", "--block-size=1", *map(str, folders)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return int(said.splitlines()[-1].split()[0])


def test_the_disk_is_counted_as_du_counts_it(tmp_path: Path):
    one, other = tmp_path / "one", tmp_path / "other"
    (one / "checkpoints" / ".step-2.tmp").mkdir(parents=True)
    other.mkdir()
    (one / "checkpoints" / ".step-2.tmp" / "model").write_bytes(os.urandom(100_001))
    (one / "metrics.jsonl").write_text("x")
    (one / "again").hardlink_to(one / "checkpoints" / ".step-2.tmp" / "model")
    (other / "model").hardlink_to(one / "again")
    (other / "link").symlink_to(one / "again")
    with (other / "hole").open("wb") as file:
        file.truncate(50_000_000)
    assert occupied([one, other]) == du(one, other)
    assert 100_001 < occupied([one, other]) < 200_000
    assert occupied([other]) == du(other)
    assert occupied([tmp_path / "absent"]) == 0


def limited(folder: Path, max_gb: float) -> DiskLimit:
    """That of a sweep whose trial a has begun, with a megabyte, and whose trial b has not."""
    (folder / "sweep").mkdir()
    Ledger(folder / "sweep" / "ledger.jsonl").append("started", "a")
    for name in ("a", "b"):
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "model").write_bytes(os.urandom(1_000_000))
    return DiskLimit(folder / "sweep", folder / "runs", max_gb)


def test_a_limit_that_has_been_passed_stays_so_and_names_the_remedy(tmp_path: Path):
    limit = limited(tmp_path, 0.0005)
    assert limit()
    (tmp_path / "runs" / "a" / "model").unlink()
    assert limit()
    with pytest.raises(LimitError) as refused:
        limit.require()
    assert str(refused.value).startswith("the sweep's runs take 0.001")
    assert "GB of disk and --max-disk=0.0005, so no more trials begin; go on" in str(refused.value)
    assert "--losers nothing, execution.keep_checkpoints=1" in str(refused.value)
    assert refused.value.exit_code == 3


def test_only_the_trials_that_have_begun_count(tmp_path: Path):
    limit = limited(tmp_path, 0.0015)
    assert not limit()
    limit.require()


def test_without_a_limit_nothing_is_too_much(tmp_path: Path):
    limited(tmp_path, math.inf).require()


def test_runs_at_a_url_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match=r"--max-disk=3 .* s3://bucket/runs; leave it out"):
        DiskLimit(tmp_path, tmp_path / "s3:" / "bucket" / "runs", 3)
    DiskLimit(tmp_path, tmp_path / "s3:" / "bucket" / "runs", math.inf).require()
