import json
from pathlib import Path

import jsonschema
import ray.autoscaler
import yaml

from lmray.distributed.cluster_yaml import ClusterYaml, read_cluster_yaml

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
