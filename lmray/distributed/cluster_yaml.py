"""A cluster's YAML as `ray up` reads it: valid or not, who may reach it, which hosts it names."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.autoscaler
import yaml

from lmray.distributed.aws_groups import ports_of, unnamed, world_in
from lmray.errors import PreflightError

GCS_PORT = 6379


@dataclass(frozen=True)
class ClusterYaml:
    """A cluster's configuration."""

    path: Path
    config: dict[str, Any]

    @property
    def hosts(self) -> list[str]:
        """The addresses it names, the head's first; none if a cloud is to make them."""
        provider = self.config["provider"]
        if provider["type"] != "local" or "head_ip" not in provider:
            return []
        return [provider["head_ip"], *provider.get("worker_ips", [])]

    @property
    def head_start(self) -> str:
        """The commands that start Ray on the head."""
        return "\n".join(self.config.get("head_start_ray_commands", []))

    @property
    def worker_start(self) -> str:
        """The commands that start Ray on a worker."""
        return "\n".join(self.config.get("worker_start_ray_commands", []))

    @property
    def key(self) -> Path | None:
        """The private key of its ssh connections, if it names one."""
        key = self.config.get("auth", {}).get("ssh_private_key")
        return Path(key).expanduser() if key else None

    def gpus(self, commands: str) -> int:
        """How many GPUs the start commands say a node has."""
        found = re.search(r"--num-gpus[= ](\d+)", commands)
        return int(found.group(1)) if found else 0

    def exposed(self) -> Iterator[tuple[str, str]]:
        """What it opens to the world, each with its remedy."""
        for where in ("head_start_ray_commands", "worker_start_ray_commands"):
            if re.search(
                r"--dashboard-host[= ](0\.0\.0\.0|::)", "\n".join(self.config.get(where, []))
            ):
                yield (
                    f"{where} binds the dashboard to all addresses, and it runs anyone's commands",
                    "write --dashboard-host=127.0.0.1 and reach it by `ray dashboard`",
                )
        group = self.config["provider"].get("security_group", {})
        for rule in group.get("IpPermissions", []):
            if world_in(rule):
                yield (
                    f"provider.security_group opens {ports_of(rule)} to the world",
                    "name your own address range in its place",
                )
        yield from unnamed(self.config)


def read_cluster_yaml(path: Path) -> ClusterYaml:
    """Reads and validates a cluster's YAML by Ray's own schema.

    Raises PreflightError if it is no YAML or not what the schema says.
    """
    import jsonschema

    schema = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
    try:
        config = yaml.safe_load(path.read_text())
        # `ray up` moves this key of clusters of one's own hosts before it looks at the schema.
        local = isinstance(config, dict) and (config.get("provider") or {}).get("type") == "local"
        plain = {k: v for k, v in config.items() if k != "min_workers"} if local else config
        jsonschema.validate(plain, json.loads(schema.read_text()))
    except yaml.YAMLError as error:
        raise PreflightError(
            f"{path} is not YAML ({' '.join(str(error).split())[:200]})"
        ) from error
    except jsonschema.ValidationError as error:
        where = ".".join(map(str, error.absolute_path)) or "the file"
        raise PreflightError(
            f"{path}: {where}: {error.message[:200]}; see Ray's reference of cluster YAML files"
        ) from error
    if config["provider"]["type"] == "local" and "coordinator_address" not in config["provider"]:
        missing = {"head_ip", "worker_ips"} - set(config["provider"])
        if missing:
            raise PreflightError(
                f"{path}: provider: {sorted(missing)[0]} is missing; name the hosts' addresses, "
                f"as in {{type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2]}}"
            )
    return ClusterYaml(path, config)
