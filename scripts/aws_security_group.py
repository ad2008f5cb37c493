"""Makes the security group that cluster.yaml asks for, and prints its id.

    python scripts/aws_security_group.py cluster.yaml 203.0.113.7/32

It lets its own members reach each other, ssh from the given addresses and nothing else. (The group
that `ray up` would make lets in ssh from the whole world, whatever provider.security_group says.)
Run again with another address it replaces the old one. Needs boto3, as `ray up` does.
"""

import argparse
import ipaddress
from pathlib import Path
from typing import Any

import yaml


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a security group that only you reach.")
    parser.add_argument("cluster", type=Path, help="the cluster's YAML: region and name")
    parser.add_argument("addresses", help="your own, as in 203.0.113.7/32")
    given = parser.parse_args()
    try:
        network = ipaddress.ip_network(given.addresses)
    except ValueError as error:
        parser.error(f"{error}; give your address as in 203.0.113.7/32")
    if network.prefixlen == 0:
        parser.error(f"{network} is the whole world; give your own address, as in 203.0.113.7/32")
    config = yaml.safe_load(given.cluster.read_text())

    import boto3  # pyrefly: ignore[missing-import] - not of lmray's dependencies

    ec2 = boto3.client("ec2", region_name=config["provider"]["region"])
    print(make(ec2, f"lmray-{config['cluster_name']}", network))


def make(ec2: Any, name: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    """The id of the default network's group `name`, which now has these two rules alone."""
    [vpc] = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    filters = [{"Name": "group-name", "Values": [name]}]
    filters += [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]
    found = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    if found:
        group, rules = found[0]["GroupId"], found[0]["IpPermissions"]
    else:
        group = ec2.create_security_group(
            GroupName=name,
            Description="Nodes of lmray among each other, and ssh from one address",
            VpcId=vpc["VpcId"],
        )["GroupId"]
        rules = []
    if rules:
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=rules)
    ranges = (
        {"IpRanges": [{"CidrIp": str(network)}]}
        if network.version == 4
        else {"Ipv6Ranges": [{"CidrIpv6": str(network)}]}
    )
    ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]},
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **ranges},
        ],
    )
    return group


if __name__ == "__main__":
    main()
