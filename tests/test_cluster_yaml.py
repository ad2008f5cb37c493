import json
from pathlib import Path

import jsonschema
import ray.autoscaler
import yaml

from lmray.distributed.cluster_yaml import read_cluster_yaml

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


def test_lmray_cluster_check_finds_nothing_exposed_in_it():
    cluster = read_cluster_yaml(ROOT / "cluster.yaml")
    assert list(cluster.exposed()) == []
    assert cluster.hosts == []


def test_ports_open_to_the_world_are_found(tmp_path: Path):
    everyone = {"FromPort": 8265, "ToPort": 8265, "IpProtocol": "tcp"}
    everyone["IpRanges"] = [{"CidrIp": "0.0.0.0/0"}]
    opened = config()
    opened["provider"]["security_group"] = {"IpPermissions": [everyone]}
    path = tmp_path / "open.yaml"
    path.write_text(yaml.safe_dump(opened))
    [(what, _)] = read_cluster_yaml(path).exposed()
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
