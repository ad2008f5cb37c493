"""Security groups of a cluster on AWS: whether any is named, and what it opens to the world.

Ray fills a group that it makes itself with ssh from 0.0.0.0/0, whatever the YAML says besides
(ray.autoscaler._private.aws.config); only a group of one's own keeps ssh to oneself.
"""

import re
from collections.abc import Iterator
from typing import Any

_WORLD = {"0.0.0.0/0", "::/0"}
_ID = re.compile(r"sg-[0-9a-f]{8,17}")
_MAKE = "python scripts/aws_security_group.py CLUSTER.yaml YOUR.ADDRESS/32 makes one"


def unnamed(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The node types for which Ray would make a group, or whose group is a placeholder; remedies.

    Nothing for other providers than AWS.
    """
    if config["provider"]["type"] != "aws":
        return
    for name, node_type in config.get("available_node_types", {}).items():
        groups = _groups(node_type.get("node_config", {}))
        where = f"available_node_types.{name}.node_config.SecurityGroupIds"
        if not groups:
            yield f"{where} is missing, so Ray makes one that opens ssh to the world", _MAKE
        for group in groups:
            if not _ID.fullmatch(group):
                yield f"{where} is still to be filled in ({group})", f"{_MAKE} and prints its id"


def _groups(node_config: dict[str, Any]) -> list[str]:
    interfaces = node_config.get("NetworkInterfaces", [])
    of_interfaces = [group for each in interfaces for group in each.get("Groups", [])]
    return [*node_config.get("SecurityGroupIds", []), *of_interfaces]


def open_rules(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The rules of the named groups, as AWS has them, that let the world in; with remedies.

    Also what keeps AWS from being asked. Nothing for other providers.
    """
    if config["provider"]["type"] != "aws":
        return
    try:
        import boto3  # pyrefly: ignore[missing-import] - `ray up` needs it, lmray does not
    except ImportError:
        yield "boto3 is not installed, and `ray up` needs it to reach AWS", "pip install boto3"
        return
    from botocore.exceptions import (  # pyrefly: ignore[missing-import]
        BotoCoreError,
        ClientError,
    )

    types = config.get("available_node_types", {}).values()
    named = sorted({group for each in types for group in _groups(each.get("node_config", {}))})
    try:
        ec2 = boto3.client("ec2", region_name=config["provider"]["region"])
        groups = ec2.describe_security_groups(GroupIds=named)["SecurityGroups"]
    except (BotoCoreError, ClientError) as error:
        said = " ".join(str(error).split())[:150]
        yield (
            f"AWS did not say what {', '.join(named)} open: {said}",
            "check your credentials, provider.region and the ids",
        )
        return
    for group in groups:
        for rule in group["IpPermissions"]:
            if world_in(rule):
                yield f"{group['GroupId']} opens {ports_of(rule)} to the world", _MAKE


def world_in(rule: dict[str, Any]) -> bool:
    """Whether a rule, in the words of EC2's API, names every address there is."""
    ranges = [each.get("CidrIp") for each in rule.get("IpRanges", [])]
    ranges += [each.get("CidrIpv6") for each in rule.get("Ipv6Ranges", [])]
    return bool(_WORLD & set(ranges))


def ports_of(rule: dict[str, Any]) -> str:
    """The ports of a rule, as a reader is told."""
    return f"ports {rule.get('FromPort', 'all')}-{rule.get('ToPort', 'all')}"
