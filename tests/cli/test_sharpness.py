"""`lmray sharpness` on a run, in this process."""

import json
import sys
from pathlib import Path

import pytest

from lmray.cli.main import main
from lmray.dataset import open_splits
from lmray.runs.execute import execute
from tests.small import small_run


def test_it_prints_a_row_a_checkpoint_or_json_and_leaves_a_file(
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    run = execute(
        small_run(small_dataset), open_splits(small_dataset), tmp_path, report=lambda record: None
    )
    words = ["lmray", "sharpness", str(run.path), "--sequences", "2", "--products", "2"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="0"):
        main()
    printed, noted = capsys.readouterr()
    rows = [line.split() for line in printed.splitlines()]
    assert rows[0] == [str(run.path / "sharpness.jsonl")]
    assert [row[0] for row in rows[2:]] == ["16", "20"], "the two newest are kept"
    assert "sharpness: done" in noted
    monkeypatch.setattr(sys, "argv", [*words, "--json"])
    with pytest.raises(SystemExit, match="0"):
        main()
    found = json.loads(capsys.readouterr().out)["records"]
    lines = (run.path / "sharpness.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == found
    assert [f"{record['limit']:.4g}" in row for record, row in zip(found, rows[2:], strict=True)]
