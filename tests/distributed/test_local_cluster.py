"""scripts/local_cluster.sh and `lmray submit` on a cluster that `ray up` made of three hosts."""

import subprocess
from pathlib import Path

import pytest

from tests.distributed.local_cluster import ROOT, LocalCluster, await_status, missing
from tests.small import write_dataset

WITHOUT = missing()
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(WITHOUT), reason=WITHOUT),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout with one file that says what it was given."""
    (tmp_path / "say.py").write_text(
        "import os, sys\n"
        "print('given', len(os.environ['GIVEN']), 'other', 'OTHER' in os.environ)\n"
        "sys.exit(int(sys.argv[1]))\n"
    )
    for command in (["init", "-q"], ["add", "say.py"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_a_job_gets_what_it_was_given_and_its_exit_code_is_the_commands(
    cluster: LocalCluster, project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GIVEN", "a-value-of-secrecy")
    monkeypatch.setenv("OTHER", "not asked for")
    job = ["submit", "--cluster", cluster.yaml, "--env", "GIVEN", "--", "python", "say.py", 7]
    said = cluster.lmray(*job, cwd=project, code=7)
    assert "given 18 other False" in said
    token = (cluster.directory / "auth_token").read_text()
    assert "a-value-of-secrecy" not in said
    assert token not in said
    logs = [
        path for path in cluster.directory.glob("h*/tmp/ray/session_2*/logs/*") if path.is_file()
    ]
    assert len(logs) > 30
    for path in logs:
        written = path.read_bytes()
        assert b"a-value-of-secrecy" not in written, path
        assert token.encode() not in written, path


def test_a_job_that_was_detached_can_be_stopped(cluster: LocalCluster, project: Path):
    place = ["submit", "--cluster", cluster.yaml]
    said = cluster.lmray(*place, "--detach", "--", "sleep", 600, cwd=project)
    job = said.split()[-1]
    assert job in cluster.lmray("cluster", "status", cluster.yaml)
    assert "asked to stop" in cluster.lmray(*place, "--stop", job)
    assert "knows no job" in cluster.lmray(*place, "--stop", "nothing", code=3)


def test_a_root_that_is_not_shared_is_refused_before_a_run_starts(cluster: LocalCluster):
    tokens = write_dataset(cluster.shared / "tokens")
    run = [f"data.tokens={tokens}", "model.vocab_size=300", "execution.workers=2"]
    job = ["submit", "--cluster", cluster.yaml, "--root", "/tmp/mine", "--", "lmray", "train", *run]
    said = cluster.lmray(*job, code=3)
    assert "error: /tmp/mine/runs is not shared: 10.78.0.12, 10.78.0.13" in said
    assert all(way in said for way in ("(1)", "(2)", "(3)"))
    said = cluster.lmray("cluster", "check", cluster.yaml, "--root", cluster.shared)
    assert "10.78.0.11 port 6379: Ray is up; each host reaches every other one" in said
    assert f"{cluster.shared} is the same on 3 hosts" in said


def test_a_host_that_was_killed_joins_again_once_it_is_started(cluster: LocalCluster):
    cluster.script("kill", 3)
    await_status(cluster, "10.78.0.13  worker  lost")
    cluster.script("start", 3)
    await_status(cluster, "10.78.0.13  worker  alive")
    assert "host 3 10.78.0.13 up, Ray runs" in cluster.script("status")


def test_lmray_of_the_package_is_what_runs(cluster: LocalCluster):
    code = "import lmray; print(lmray.__file__)"
    job = ["submit", "--cluster", cluster.yaml, "--", "python", "-c", code]
    said = cluster.lmray(*job, cwd=ROOT)
    assert "working_dir_files" in said.splitlines()[-1]
