"""scripts/slurm.sh: what it refuses anywhere, and a job on a Slurm of two nodes where one runs."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributed.slurm import ROOT, Slurm, missing

SCRIPT = ROOT / "scripts" / "slurm.sh"
WITHOUT = missing()

# Says which nodes and CPUs Ray has, then waits for Slurm's notice.
JOB = """
import json, os, signal, sys, time
from pathlib import Path
import ray
ray.init(log_to_driver=False, logging_level="ERROR")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
facts = {"cpus": nodes, "node": os.environ["SLURMD_NODENAME"], "mode": os.environ["RAY_AUTH_MODE"]}
facts["token"] = os.environ["RAY_AUTH_TOKEN"]
Path(sys.argv[1]).with_suffix(".aside").write_text(json.dumps(facts))
Path(sys.argv[1]).with_suffix(".aside").rename(sys.argv[1])
while True:
    time.sleep(0.2)
"""


def refused(*command: str, code: int, **environment: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    done = subprocess.run(
        ["bash", str(SCRIPT), *command],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stderr


def test_it_refuses_to_run_without_a_command_or_an_allocation():
    assert "no command" in refused(code=2)
    assert "start this by sbatch or salloc" in refused("lmray", "doctor", code=3)


def test_it_refuses_an_environment_without_ray():
    error = refused("lmray", code=3, SLURM_JOB_ID="1", PATH="/usr/bin:/bin")
    assert "no ray on the PATH" in error


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck not found")
def test_shellcheck_finds_nothing_in_it():
    subprocess.run(["shellcheck", str(SCRIPT)], check=True)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.skipif(bool(WITHOUT), reason=WITHOUT)
def test_a_job_has_a_ray_of_its_nodes_and_cpus_is_told_to_end_and_leaves_nothing(tmp_path: Path):
    told, log = tmp_path / "told.json", tmp_path / "log"
    (tmp_path / "home").mkdir()
    with Slurm(tmp_path) as slurm:
        number = slurm.run(
            *("sbatch", "--parsable", "--nodes=2", f"--output={log}"),
            f"--export=ALL,HOME={tmp_path / 'home'}",
            *(str(SCRIPT), "python", "-c", JOB, str(told)),
        ).strip()
        try:
            await_(lambda: told.exists() or ended(slurm, number), log)
            assert told.exists(), log.read_text()
            slurm.run("scancel", "--signal=TERM", "--batch", number)
            await_(lambda: ended(slurm, number), log)
        finally:
            slurm.run("scancel", number)
        assert slurm.job(number)["ExitCode"] == "7:0", log.read_text()
        # Daemons that were told to end may still be writing their last lines.
        await_(lambda: not processes_of(number), log)
    facts = json.loads(told.read_text())
    assert facts["cpus"] == [1, 1]
    assert (facts["node"], facts["mode"]) == ("n1", "token")
    assert "2 nodes at" in log.read_text()
    assert len(facts["token"]) == 64
    assert facts["token"] not in log.read_text()
    assert not Path(f"/tmp/lmray-ray-{number}").exists()


def ended(slurm: Slurm, number: str) -> bool:
    return slurm.job(number).get("JobState") in ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL")


def processes_of(number: str) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if f"/tmp/lmray-ray-{number}/" in line]


def await_(condition: Callable[[], bool], log: Path) -> None:
    until = time.monotonic() + 500
    while not condition():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.5)
