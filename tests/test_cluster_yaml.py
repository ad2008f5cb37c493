import json
from pathlib import Path

import jsonschema
import ray.autoscaler
import yaml

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


def test_what_it_copies_exists():
    assert config()["file_mounts"]["~/lmray"] == "."
    assert (ROOT / "constraints.txt").exists()
