"""`lmray cluster check` on hosts that are fit for `ray up`, and with one thing broken at a time."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lmray.distributed.cluster_check import check_cluster
from tests.distributed.local_cluster import LocalCluster, made, missing

WITHOUT = missing()
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(bool(WITHOUT), reason=WITHOUT),
]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with made(tmp_path_factory.mktemp("cluster") / "c", "hosts") as cluster:
        yield cluster


def failures(
    hosts: LocalCluster, yaml: Path | None = None, *, root: object = ""
) -> list[tuple[str, str]]:
    """What failed, and in which words, each with a remedy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(hosts.directory / "auth_token"))
        # A Ray that an earlier test started in this process has left its own.
        patch.delenv("RAY_AUTH_TOKEN", raising=False)
        findings = check_cluster(yaml or hosts.yaml, str(root))
    failed = [finding for finding in findings if not finding.ok]
    assert all(finding.remedy for finding in failed)
    return [(finding.what, finding.found) for finding in failed]


def test_hosts_that_are_fit_pass(hosts: LocalCluster):
    assert failures(hosts, root=hosts.shared / "root") == []
    assert list((hosts.shared / "root").iterdir()) == []


@contextmanager
def login(hosts: LocalCluster, number: int, lines: str) -> Iterator[None]:
    """More lines at the end of a host's ~/.bashrc."""
    bashrc = hosts.directory / f"h{number}" / "root" / ".bashrc"
    before = bashrc.read_text()
    bashrc.write_text(before + lines)
    try:
        yield
    finally:
        bashrc.write_text(before)


def test_the_verb_prints_findings_and_exits_with_3(hosts: LocalCluster):
    said = hosts.lmray("cluster", "check", hosts.yaml, "--root", "/tmp/mine", "--json", code=3)
    findings = json.loads(said.partition("...\n")[2])
    assert [finding["ok"] for finding in findings if finding["what"] == "storage"] == [False] * 2


def changed(hosts: LocalCluster, edit: Callable[[str], str]) -> Path:
    path = hosts.directory / "changed.yaml"
    path.write_text(edit(hosts.yaml.read_text()))
    return path


def test_a_key_that_rays_schema_does_not_know_is_named(hosts: LocalCluster):
    yaml = changed(hosts, lambda text: text.replace("max_workers:", "most_workers:"))
    [(what, found)] = failures(hosts, yaml)
    assert what == "yaml"
    assert "most_workers" in found


def test_a_dashboard_open_to_the_world_is_named(hosts: LocalCluster):
    yaml = changed(hosts, lambda text: text.replace("127.0.0.1", "0.0.0.0"))
    [(what, found)] = failures(hosts, yaml)
    assert (what, "head_start_ray_commands" in found) == ("exposure", True)


def test_a_key_that_others_may_read_is_named(hosts: LocalCluster):
    (hosts.directory / "key").chmod(0o644)
    try:
        [(what, found)] = failures(hosts)
    finally:
        (hosts.directory / "key").chmod(0o600)
    assert (what, "others may read" in found) == ("ssh key", True)


def test_a_host_that_does_not_know_the_key_is_named(hosts: LocalCluster):
    known = hosts.directory / "h2" / "run" / "sshd" / "key.pub"
    before = known.read_text()
    known.write_text("")
    try:
        [(what, found)] = failures(hosts)
    finally:
        known.write_text(before)
    assert what == "ssh"
    assert "10.78.0.12: refuses the key" in found


def test_a_host_that_is_off_is_named(hosts: LocalCluster):
    hosts.script("kill", 3)
    try:
        [(what, found)] = failures(hosts)
        assert "host 3 10.78.0.13 down" in hosts.script("status")
    finally:
        hosts.script("start", 3)
    assert what == "ssh"
    assert "10.78.0.13: no answer to ssh" in found


def test_another_ray_on_one_host_is_named(hosts: LocalCluster):
    metadata = hosts.shared / "other" / "ray-2.50.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: ray\nVersion: 2.50.0\n")
    with login(hosts, 2, f"export PYTHONPATH={hosts.shared}/other\n"):
        [(what, found)] = failures(hosts)
    assert what == "ray"
    assert "10.78.0.12 has 2.50.0" in found


def test_a_host_without_rays_python_is_named(hosts: LocalCluster):
    with login(hosts, 3, "export PATH=/usr/bin/nothing\n"):
        [(what, found)] = failures(hosts)
    assert what == "ssh"
    assert "10.78.0.13: no Python ran the probe" in found


def test_a_clock_that_is_wrong_is_named(hosts: LocalCluster):
    # No namespace has a wall clock of its own: the host's Python reads it an hour ahead.
    site = hosts.shared / "ahead" / "sitecustomize.py"
    site.parent.mkdir()
    site.write_text("import time\nreal = time.time\ntime.time = lambda: real() + 3600\n")
    with login(hosts, 2, f"export PYTHONPATH={hosts.shared}/ahead\n"):
        [(what, found)] = failures(hosts)
    assert what == "clock"
    assert "10.78.0.12 is 3" in found


def test_gpus_that_are_asked_for_and_absent_are_named(hosts: LocalCluster):
    yaml = changed(
        hosts,
        lambda text: text.replace("--num-cpus=1", "--num-cpus=1 --num-gpus=64").replace(
            "--num-gpus=64", "", 1
        ),
    )
    found = failures(hosts, yaml)
    assert [what for what, _ in found] == ["gpus", "gpus"]
    assert "--num-gpus=64" in found[0][1]


def test_a_port_that_is_taken_is_named_with_its_holder(hosts: LocalCluster):
    listen = "import socket; s = socket.create_server(('', 6379)); print('on', flush=True); input()"
    process = subprocess.Popen(
        ["nsenter", "--net=/run/netns/lmrayt-h1", "python3", "-c", listen],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        [(what, found)] = failures(hosts)
        process.stdin.close()
    assert what == "ports"
    assert "10.78.0.11: port 6379 is taken by" in found


def test_hosts_that_cannot_reach_the_head_are_named(hosts: LocalCluster):
    route = ["ip", "-n", "lmrayt-h3", "route"]
    subprocess.run([*route, "add", "blackhole", "10.78.0.11/32"], check=True)
    try:
        found = failures(hosts)
    finally:
        subprocess.run([*route, "del", "blackhole", "10.78.0.11/32"], check=True)
    assert [what for what, _ in found] == ["ports", "ports"]
    assert "10.78.0.11 cannot reach 10.78.0.13 port" in found[0][1]
    assert "10.78.0.13 cannot reach 10.78.0.11 port 6379" in found[1][1]


def test_workers_that_cannot_reach_each_other_are_named(hosts: LocalCluster):
    route = ["ip", "-n", "lmrayt-h3", "route"]
    subprocess.run([*route, "add", "blackhole", "10.78.0.12/32"], check=True)
    try:
        found = failures(hosts)
    finally:
        subprocess.run([*route, "del", "blackhole", "10.78.0.12/32"], check=True)
    assert [what for what, _ in found] == ["ports", "ports"]
    assert "10.78.0.12 cannot reach 10.78.0.13 port" in found[0][1]
    assert "10.78.0.13 cannot reach 10.78.0.12 port" in found[1][1]


def test_a_root_that_is_not_shared_is_named(hosts: LocalCluster):
    found = failures(hosts, root="/tmp/mine")
    assert [what for what, _ in found] == ["storage", "storage"]
    assert "10.78.0.12 does not see what 10.78.0.11 wrote to /tmp/mine" in found[0][1]


def test_a_second_cluster_of_the_same_name_is_refused(hosts: LocalCluster):
    assert "down` first" in hosts.script("hosts", code=3)


def test_a_cluster_that_asks_for_no_token_takes_jobs_without_one(hosts: LocalCluster):
    start = "ray start --head --num-cpus=1 --object-store-memory=100000000"
    again = f"for try in 1 2 3; do {start} --dashboard-host=10.78.0.11 && break; ray stop -f; done"
    hosts.script("ssh", 1, f"export RAY_AUTH_MODE=disabled; ulimit -c 0; {again}")
    without = replace(hosts, auth_mode="")  # lmray's own default, and no token anywhere
    code = (
        "from lmray.distributed.cluster import ray_session; import ray\n"
        "with ray_session(): print('nodes', len(ray.nodes()))"
    )
    job = ["submit", "--address", "http://10.78.0.11:8265", "--", "python", "-c", code]
    try:
        assert "nodes 1" in without.lmray(*job)
        assert "10.78.0.11  head  alive" in without.lmray("cluster", "status", *job[1:3])
    finally:
        hosts.script("ssh", 1, "ray stop --force")
