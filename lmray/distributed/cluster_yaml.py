"""A cluster's YAML as `ray up` reads it: valid or not, who may reach it, which hosts it names."""

import ipaddress
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.autoscaler
import yaml

from lmray.distributed.aws_groups import ports_of, unnamed, world_in
from lmray.errors import PreflightError

GCS_PORT = 6379
"""Where Ray's head listens unless it is told otherwise."""

TOKEN_FILE = "~/.ray/auth_token"
"""Where Ray looks for the token unless it is told otherwise."""


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
        found = option_values(commands, "--num-gpus")
        return int(found[0]) if found and found[0].isdigit() else 0

    @property
    def port(self) -> int:
        """Where the head listens for the others.

        Raises PreflightError if that is no number, or if the workers look elsewhere.
        """
        written = (option_values(self.head_start, "--port") or [str(GCS_PORT)])[0]
        asked = option_values(self.worker_start, "--address")
        wrong = [address for address in asked if address.rpartition(":")[2] != written]
        if not written.isdigit() or int(written) == 0 or wrong:
            where = f", the workers' --address {wrong[0]}" if wrong else ""
            raise PreflightError(
                f"the head's --port is {written}{where}; write the same number in both start "
                f"commands, as in --port={GCS_PORT} and --address=$RAY_HEAD_IP:{GCS_PORT}"
            )
        return int(written)

    @property
    def token_mount(self) -> Path | None:
        """The file that `ray up` puts where Ray looks for the token on each node, if it does."""
        source = self.config.get("file_mounts", {}).get(TOKEN_FILE)
        return Path(source).expanduser() if source else None

    def exposed(self) -> Iterator[tuple[str, str]]:
        """What it opens to the world, each with its remedy."""
        for where in ("head_start_ray_commands", "worker_start_ray_commands"):
            commands = "\n".join(self.config.get(where, []))
            if any(map(_to_the_world, option_values(commands, "--dashboard-host"))):
                yield (
                    f"{where} opens the dashboard to the world, and it runs anyone's commands",
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


def option_values(commands: str, option: str) -> list[str]:
    """What a shell would hand to the programs of these lines as values of an option, in order."""
    words = []
    for line in commands.splitlines():
        try:
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            lexer.commenters = ""
            words += [*lexer]
        except ValueError:  # quotes that end on another line
            words += line.split()
    following = zip(words, [*words[1:], ""], strict=True)
    apart = [after for word, after in following if word == option]
    return [*apart, *(w.partition("=")[2] for w in words if w.startswith(f"{option}="))]


def _to_the_world(host: str) -> bool:
    """Whether who listens at this address can be reached from everywhere."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host in ("", "0", "*")
    return address.is_unspecified or address.is_global


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
