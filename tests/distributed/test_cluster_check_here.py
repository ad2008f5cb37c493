"""`lmray cluster check` where ssh leads back to this machine, to homes that differ as hosts do."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from lmray.distributed.cluster_check import check_cluster
from lmray.distributed.cluster_finding import Finding
from tests.fake_aws import WITHOUT, fake_aws

ADDRESSES = ("127.0.0.11", "127.0.0.12", "127.0.0.13")
SSH = r"""#!/bin/bash
# In place of ssh: the command runs here, at home in the folder of the host.
host=${@: -2:1}
home=$HOSTS/${host#*@}
if [ -e "$home/away" ] && [[ ${@: -1} =~ "'{\"do\": \""($(cat "$home/away"))\" ]]; then
  echo "connect to host ${host#*@} port 22: Connection timed out" >&2
  exit 255
fi
exec env -i HOME="$home" PATH="$PATH" bash -c "${@: -1}"
"""
CUT = """import socket
real = socket.create_connection
def cut(to, **more):
    if to[0] == {0!r}:
        raise OSError(113, 'No route to host')
    return real(to, **more)
socket.create_connection = cut
"""
LOGIN = f"export PATH={Path(sys.executable).parent}:$PATH RAY_AUTH_MODE=token\n"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8"),
]


@dataclass(frozen=True)
class Hosts:
    """Three of them, and a token here."""

    directory: Path
    token: str = "a-token-of-secrecy"

    def home(self, number: int) -> Path:
        return self.directory / ADDRESSES[number - 1]

    def login(self, number: int, lines: str) -> None:
        with (self.home(number) / ".bashrc").open("a") as file:
            file.write(lines)

    def goes_away(self, number: int, *asked: str) -> None:
        """It answers until it is asked one of these; then ssh does not reach it."""
        (self.home(number) / "away").write_text("|".join(asked))

    def has_module(self, number: int, name: str, text: str) -> None:
        """A file that the host's Python finds first."""
        file = self.directory / f"modules-{number}" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        self.login(number, f"export PYTHONPATH={self.directory}/modules-{number}\n")

    def has_package(self, number: int, name: str, version: str) -> None:
        folder = self.directory / f"modules-{number}" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        self.has_module(number, f"{folder.name}/METADATA", text)

    def findings(self, change: Callable[[dict], object] = lambda config: None, root: str = ""):
        config = {
            "cluster_name": "here",
            "provider": {
                "type": "local",
                "head_ip": ADDRESSES[0],
                "worker_ips": list(ADDRESSES[1:]),
            },
            "auth": {"ssh_user": "you"},
            "file_mounts": {"~/.ray/auth_token": str(self.directory / "auth_token")},
            "head_start_ray_commands": ["ray start --head --port=47613"],
            "worker_start_ray_commands": ["ray start --address=$RAY_HEAD_IP:47613"],
        }
        change(config)
        path = self.directory / "cluster.yaml"
        path.write_text(yaml.safe_dump(config))
        return check_cluster(path, root)

    def failures(
        self, change: Callable[[dict], object] = lambda config: None, root: str = ""
    ) -> list[tuple[str, str]]:
        failed: list[Finding] = [each for each in self.findings(change, root) if not each.ok]
        assert all(each.remedy for each in failed)
        assert not any(self.token in each.found for each in failed)
        return [(each.what, each.found) for each in failed]


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    made = Hosts(tmp_path)
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    for number in (1, 2, 3):
        made.home(number).mkdir()
        made.login(number, LOGIN)
    (tmp_path / "auth_token").write_text(f"{made.token}\n")
    monkeypatch.setenv("HOSTS", str(tmp_path))
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "auth_token"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    return made


def test_hosts_that_are_fit_pass_and_the_port_is_the_yamls(hosts: Hosts):
    findings = hosts.findings()
    assert [each for each in findings if not each.ok] == []
    [ports] = [each.found for each in findings if each.what == "ports"]
    assert ports == "127.0.0.11 port 47613: free; each host reaches every other one"


def test_workers_that_look_elsewhere_than_the_head_listens_are_named(hosts: Hosts):
    def elsewhere(config: dict) -> None:
        config["worker_start_ray_commands"] = ["ray start --address=$RAY_HEAD_IP:6379"]

    [(what, found)] = hosts.failures(elsewhere)
    assert what == "ports"
    assert "--port is 47613, the workers' --address $RAY_HEAD_IP:6379" in found


def test_hosts_that_do_not_reach_each_other_are_named(hosts: Hosts):
    hosts.has_module(1, "sitecustomize.py", CUT.format(ADDRESSES[1]))
    hosts.has_module(3, "sitecustomize.py", CUT.format(ADDRESSES[1]))
    found = hosts.failures()
    assert [what for what, _ in found] == ["ports", "ports"]
    assert f"{ADDRESSES[0]} cannot reach {ADDRESSES[1]} port" in found[0][1]
    assert f"{ADDRESSES[2]} cannot reach {ADDRESSES[1]} port" in found[1][1]


@pytest.mark.parametrize(
    ("number", "asked", "areas"),
    [
        (1, ("listen", "write"), ["ports", "storage"]),
        (1, ("connect", "write"), ["ports", "storage"]),
        (1, ("remove",), ["storage"]),
        (3, ("listen", "read"), ["ports", "storage"]),
        (3, ("connect", "read"), ["ports", "storage"]),
    ],
)
def test_a_host_that_goes_away_meanwhile_is_named_and_the_rest_is_kept(
    hosts: Hosts, number: int, asked: tuple[str, ...], areas: list[str]
):
    if "connect" in asked:  # who has answered finds it gone, too
        hosts.has_module(2, "sitecustomize.py", CUT.format(ADDRESSES[number - 1]))
    hosts.goes_away(number, *asked)
    findings = hosts.findings(root=str(hosts.directory / "shared"))
    failed = [each for each in findings if not each.ok]
    assert [each.what for each in failed] == areas
    for each in failed:
        assert each.found.startswith(f"{ADDRESSES[number - 1]}: no answer to ssh (")
        assert "is it on" in each.remedy
    assert {"yaml", "token", "ssh", "python", "clock"} <= {
        each.what for each in findings if each.ok
    }


def test_a_host_whose_nvidia_smi_hangs_has_no_gpus(hosts: Hosts):
    program = hosts.directory / "hangs" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/bash\nexec sleep 600\n")
    program.chmod(0o755)
    hosts.login(2, f"export PATH={program.parent}:$PATH\n")
    hasty = (
        "import subprocess\n"
        "real = subprocess.run\n"
        "subprocess.run = lambda *words, **more: real(*words, **more | {'timeout': 1})\n"
    )
    hosts.has_module(2, "sitecustomize.py", hasty)

    def one_each(config: dict) -> None:
        config["worker_start_ray_commands"] = [
            "ray start --address=$RAY_HEAD_IP:47613 --num-gpus=1"
        ]

    found = f"{ADDRESSES[1]}: 0 GPUs, but Ray is started with --num-gpus=1"
    assert ("gpus", found) in hosts.failures(one_each)


def test_hosts_without_the_token_or_with_another_are_named(hosts: Hosts):
    folder = hosts.home(2) / ".ray"
    folder.mkdir()
    (folder / "auth_token").write_text("another-token-of-secrecy")
    hosts.login(3, "export RAY_AUTH_TOKEN=a-third-one\n")
    assert hosts.failures(lambda config: config.pop("file_mounts")) == [
        ("token", f"{ADDRESSES[0]} has no token"),
        ("token", f"{ADDRESSES[1]} has another token than here"),
        ("token", f"{ADDRESSES[2]} has another token than here (RAY_AUTH_TOKEN)"),
    ]
    # `ray up` writes the file, but what the environment says goes before it.
    [(_, found)] = hosts.failures()
    assert found == f"{ADDRESSES[2]} has another token than here (RAY_AUTH_TOKEN)"


def test_a_file_that_is_copied_and_has_another_token_than_here_is_named(hosts: Hosts):
    (hosts.directory / "other").write_text("x")
    other = {"~/.ray/auth_token": str(hosts.directory / "other")}
    [(what, found)] = hosts.failures(lambda config: config.update(file_mounts=other))
    assert (what, "is not the token shown from here" in found) == ("token", True)


def test_a_host_whose_logins_do_not_say_that_a_token_is_shown_is_named(hosts: Hosts):
    hosts.login(2, "unset RAY_AUTH_MODE\n")
    assert hosts.failures() == [("token", f"{ADDRESSES[1]}: RAY_AUTH_MODE is not set in a login")]


@pytest.mark.parametrize("package", ["ray", "torch", "numpy"])
def test_another_version_of_what_matters_is_named(hosts: Hosts, package: str):
    hosts.has_package(2, package, "1.2.3")
    [(what, found)] = hosts.failures()
    here = metadata.version(package).partition("+")[0]
    assert (what, found) == (package, f"{ADDRESSES[1]} has 1.2.3; here it is {here}")


def test_the_same_torch_built_for_another_device_and_an_older_rich_are_fit(hosts: Hosts):
    hosts.has_package(2, "torch", f"{metadata.version('torch').partition('+')[0]}+cu130")
    hosts.has_package(3, "rich", "13.9.0")
    hosts.has_package(3, "lmray", "0.0.1")  # a job brings its own
    assert hosts.failures() == []


def test_a_python_that_is_not_the_heads_to_the_last_number_is_named(hosts: Hosts):
    other = "import platform\nplatform.python_version = lambda: '3.11.99'\n"
    hosts.has_module(2, "sitecustomize.py", other)
    [(what, found)] = hosts.failures()
    assert what == "python"
    assert f"{ADDRESSES[1]} has 3.11.99; {ADDRESSES[0]} has" in found
    for number in (1, 3):  # this machine's own may differ
        hosts.has_module(number, "sitecustomize.py", other)
    assert hosts.failures() == []


def test_a_dependency_that_a_host_lacks_is_named(hosts: Hosts):
    hidden = (
        "import importlib.metadata as m\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name == 'safetensors':\n"
        "        raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
    )
    hosts.has_module(3, "sitecustomize.py", hidden)
    [(what, found)] = hosts.failures()
    assert what == "packages"
    assert found == f"{ADDRESSES[2]} lacks safetensors, which lmray depends on"


def test_a_url_of_another_kind_is_refused(hosts: Hosts):
    [(what, found)] = hosts.failures(root="hdfs://x/y")
    assert (what, found) == ("storage", "--root hdfs://x/y is neither s3:// nor gs://")


@pytest.mark.skipif(bool(WITHOUT), reason=f"{WITHOUT} not installed")
def test_a_url_is_written_on_the_head_and_read_on_each_host(hosts: Hosts, tmp_path: Path):
    import boto3  # pyrefly: ignore[missing-import]

    with fake_aws(tmp_path) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
            for number in (1, 2, 3):
                hosts.login(number, f"export {name}={value}\n")
        s3 = boto3.client("s3", region_name="us-west-2")
        where = {"LocationConstraint": "us-west-2"}
        s3.create_bucket(Bucket="bucket", CreateBucketConfiguration=where)
        assert hosts.failures(root="s3://bucket/out") == []
        # pyarrow leaves a marker of the folder.
        left = [each["Key"] for each in s3.list_objects_v2(Bucket="bucket").get("Contents", [])]
        assert left in ([], ["out/"])
        [(what, found)] = hosts.failures(root="s3://another/out")
        assert (what, f"{ADDRESSES[0]} cannot write to s3://another/out" in found) == (
            "storage",
            True,
        )
        hosts.login(3, "export AWS_ENDPOINT_URL=http://127.0.0.1:9\n")
        [(what, found)] = hosts.failures(root="s3://bucket/out")
        assert f"{ADDRESSES[2]} does not see what {ADDRESSES[0]} wrote" in found
