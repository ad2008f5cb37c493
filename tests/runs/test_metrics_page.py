"""docs/metrics.md names what a run records, and nothing else."""

import re
from pathlib import Path

from lmray.dataset import open_splits
from lmray.runs.execute import execute
from tests.small import small_run

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


def keys(heading: str) -> set[str]:
    """The keys in the first column of the table below a heading."""
    section = PAGE.partition(f"\n## {heading}")[2].partition("\n## ")[0]
    columns = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {key for column in columns for key in re.findall(r"`(\w+)`", column)}


def test_every_key_of_a_record_is_on_the_page(small_dataset: Path, tmp_path: Path):
    run, splits = small_run(small_dataset), open_splits(small_dataset)
    directory = execute(run, splits, tmp_path, report=lambda record: None)
    for kind, heading in (("train", "Train records"), ("validation", "Validation records")):
        found = {key for record in directory.records(kind) for key in record.keys() - {"kind"}}
        assert found == keys(heading)
    (life,) = directory.facts["lives"]
    for key in ("began_at_step", "parameters", "compile_s", "device", "first_step_at"):
        assert key in life
        assert f"`{key}`" in PAGE
    assert (life["began_at_step"], life["compile_s"], life["device"]) == (0, 0.0, "cpu")
