import json
import subprocess
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.command_runner import SSHCommandRunner

from lmray.distributed.aws_profiles import unfit_profiles
from lmray.distributed.cluster_yaml import ClusterYaml, read_cluster_yaml
from lmray.distributed.package import SECRETS
from lmray.errors import PreflightError

ROOT = Path(__file__).parents[1]


def config() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_rays_own_schema_accepts_it():
    schema = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
    jsonschema.validate(config(), json.loads(schema.read_text()))


def test_the_dashboard_is_bound_to_loopback_and_nothing_to_the_world():
    commands = " ".join(config()["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in commands
    assert "0.0.0.0" not in (ROOT / "cluster.yaml").read_text()


def written(path: Path, changed: dict) -> ClusterYaml:
    path.write_text(yaml.safe_dump(changed))
    return read_cluster_yaml(path)


def with_group(group: list[str] | None) -> dict:
    changed = config()
    for node_type in changed["available_node_types"].values():
        del node_type["node_config"]["SecurityGroupIds"]
        if group is not None:
            node_type["node_config"]["SecurityGroupIds"] = group
    return changed


def test_the_group_to_be_filled_in_is_all_that_is_exposed_in_it(tmp_path: Path):
    cluster = read_cluster_yaml(ROOT / "cluster.yaml")
    assert cluster.hosts == []
    found = list(cluster.exposed())
    assert len(found) == len(config()["available_node_types"])
    assert all("still to be filled in (sg-FILL-IN)" in what for what, _ in found)
    filled = written(tmp_path / "c.yaml", with_group(["sg-0123456789abcdef0"]))
    assert list(filled.exposed()) == []


def test_a_group_that_ray_would_make_is_found(tmp_path: Path):
    found = list(written(tmp_path / "c.yaml", with_group(None)).exposed())
    assert len(found) == len(config()["available_node_types"])
    for what, remedy in found:
        assert "Ray makes one that opens ssh to the world" in what
        assert "scripts/aws_security_group.py" in remedy


def test_ports_open_to_the_world_are_found(tmp_path: Path):
    everyone = {"FromPort": 8265, "ToPort": 8265, "IpProtocol": "tcp"}
    everyone["IpRanges"] = [{"CidrIp": "0.0.0.0/0"}]
    opened = with_group(["sg-0123456789abcdef0"])
    opened["provider"]["security_group"] = {"IpPermissions": [everyone]}
    [(what, _)] = written(tmp_path / "open.yaml", opened).exposed()
    assert "8265-8265 to the world" in what


def test_tokens_spot_and_idle_shut_down_are_on():
    assert "RAY_AUTH_MODE=token" in " ".join(config()["setup_commands"])
    assert config()["idle_timeout_minutes"] <= 15
    worker = config()["available_node_types"]["gpu"]
    assert worker["min_workers"] == 0
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert config()["available_node_types"]["head"]["resources"] == {"CPU": 0}


def test_what_it_copies_exists():
    assert config()["file_mounts"]["~/lmray"] == "."
    assert (ROOT / "constraints.txt").exists()


def with_profiles(head: dict, gpu: dict) -> dict:
    changed = config()
    for name, profile in (("head", head), ("gpu", gpu)):
        changed["available_node_types"][name]["node_config"]["IamInstanceProfile"] = profile
    return changed


def test_profiles_that_are_to_be_filled_in_are_named():
    found = [what for what, _ in unfit_profiles(config(), "")]
    where = "available_node_types.{}.node_config.IamInstanceProfile is still to be filled in ({})"
    assert found == [where.format("head", "FILL-IN-head"), where.format("gpu", "FILL-IN-worker")]
    assert list(unfit_profiles(with_profiles({"Name": "h"}, {"Arn": "w"}), "s3://b/x")) == []


def test_a_profile_that_is_missing_is_named_where_it_is_needed():
    assert list(unfit_profiles(with_profiles({}, {}), "/mnt/efs")) == []
    [(what, _)] = unfit_profiles(with_profiles({}, {}), "s3://b/x")
    assert "gpu.node_config.IamInstanceProfile is missing, so these nodes may not use" in what
    [(what, _)] = unfit_profiles(with_profiles({}, {"Name": "w"}), "s3://b/x")
    assert "head.node_config.IamInstanceProfile is missing, and the role that Ray makes" in what


def starts(path: Path, head: str, worker: str = "ray start --address=$RAY_HEAD_IP:6379"):
    changed = with_group(["sg-0123456789abcdef0"])
    changed["head_start_ray_commands"] = [head]
    changed["worker_start_ray_commands"] = [worker]
    return written(path / "c.yaml", changed)


@pytest.mark.parametrize(
    "option",
    [
        "--dashboard-host=0.0.0.0",
        "--dashboard-host 0.0.0.0",
        '--dashboard-host="0.0.0.0"',
        "--dashboard-host  '::'",
        '"--dashboard-host=0.0.0.0"',
        "--dashboard-host=0.0.0.0;echo",
        "--dashboard-host=8.8.8.8",
    ],
)
def test_a_dashboard_open_to_the_world_is_found_however_it_is_written(tmp_path: Path, option: str):
    [(what, _)] = starts(tmp_path, f"ulimit -n 9; ray start --head {option} --port=6379").exposed()
    assert "opens the dashboard to the world" in what


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", '"127.0.0.1"', "10.0.0.1"])
def test_a_dashboard_on_loopback_or_a_private_network_is_not(tmp_path: Path, host: str):
    assert list(starts(tmp_path, f"ray start --head --dashboard-host={host}").exposed()) == []


def test_the_port_is_the_one_that_is_written(tmp_path: Path):
    assert starts(tmp_path, "ray start --head").port == 6379
    other = "ray start --address=$RAY_HEAD_IP:6380 && true"
    assert starts(tmp_path, "ray start --head --port 6380", other).port == 6380
    for head in ("--port=6380", "--port=0", "--port=$PORT"):
        with pytest.raises(PreflightError, match="write the same number in both"):
            _ = starts(tmp_path, f"ray start --head {head}").port


def test_ray_up_copies_what_git_tracks_and_no_secret(tmp_path: Path):
    """By rsync with the arguments that Ray makes of the YAML."""
    source, target = tmp_path / "source", tmp_path / "target"
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    secret = [name.replace("[_-]", "_").replace("*", "x") for name in SECRETS]
    secret = [*secret, *(f"lmray/{name}" for name in secret)]
    others = ["lmray-out/runs/x", ".venv/bin/python", ".git/config", "lmray/__pycache__/a.pyc"]
    for name in (*tracked, *secret, *others):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("x")
    (source / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    options = {name: config().get(name) for name in ("rsync_exclude", "rsync_filter")}
    arguments = SSHCommandRunner._create_rsync_filter_args(None, options)  # pyrefly: ignore
    rsync = ["rsync", "-az", *arguments]
    subprocess.run([*rsync, f"{source}/", f"{target}/"], check=True)
    copied = {str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()}
    assert copied == set(tracked)
    # What the cluster needs comes all the same: these files are copied by themselves.
    for name in ("auth_token", "ray_bootstrap_key.pem"):
        (tmp_path / name).write_text("x")
        subprocess.run([*rsync, str(tmp_path / name), f"{target}/{name}"], check=True)
        assert (target / name).exists()


def test_spot_workers_watch_for_the_notice():
    watching = config()["worker_start_ray_commands"][-1]
    assert "python ~/lmray/scripts/before_the_end.py --watch" in watching
    assert (ROOT / "scripts" / "before_the_end.py").exists()
