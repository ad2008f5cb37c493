"""The costs in docs/cluster.md are what scripts/cluster_cost.py computes from measured rates."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_on_clusters_has_the_costs_as_computed():
    command = [sys.executable, str(ROOT / "scripts" / "cluster_cost.py")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, check=True
    )
    page = " ".join((ROOT / "docs" / "cluster.md").read_text().split())
    lines = [line for line in done.stdout.splitlines() if line]
    assert sum(line.startswith("| 64 |") for line in lines) == 2
    for line in lines:
        assert line in page, "run scripts/cluster_cost.py and put what it prints on the page"
