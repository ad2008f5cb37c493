"""cluster.yaml against an AWS that is none, up to the first ssh; skipped without moto."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmray.distributed.cluster_check import check_cluster
from tests.fake_aws import WITHOUT, fake_aws

ROOT = Path(__file__).parents[2]
GROUP_SCRIPT = ROOT / "scripts" / "aws_security_group.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(WITHOUT), reason=f"{WITHOUT} not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with fake_aws(tmp_path_factory.mktemp("aws")) as environment, pytest.MonkeyPatch.context() as m:
        for name, value in environment.items():
            m.setenv(name, value)
        yield environment


def client(service: str) -> Any:
    import boto3

    return boto3.client(service, region_name="us-west-2")


def made_group(address: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, str(GROUP_SCRIPT), str(ROOT / "cluster.yaml"), address],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout.strip() or done.stderr


def filled_in(path: Path, group: str) -> Path:
    text = (ROOT / "cluster.yaml").read_text().replace("sg-FILL-IN", group)
    path.write_text(text.replace("FILL-IN-head", "head").replace("FILL-IN-worker", "worker"))
    return path


def exposures(path: Path) -> list[str]:
    findings = check_cluster(path, "")
    return [each.found for each in findings if each.what == "exposure" and not each.ok]


def test_the_group_lets_in_its_members_and_ssh_from_one_address(aws: dict[str, str]):
    first = made_group("203.0.113.7/32")
    assert made_group("203.0.113.8/32") == first
    [group] = client("ec2").describe_security_groups(GroupIds=[first])["SecurityGroups"]
    members, ssh = group["IpPermissions"]
    assert [pair["GroupId"] for pair in members["UserIdGroupPairs"]] == [first]
    assert members["IpRanges"] == []
    assert (ssh["FromPort"], ssh["ToPort"]) == (22, 22)
    assert ssh["IpRanges"] == [{"CidrIp": "203.0.113.8/32"}]


@pytest.mark.parametrize("address", ["0.0.0.0/0", "::/0", "here"])
def test_the_group_is_not_made_for_the_world_or_for_nonsense(aws: dict[str, str], address: str):
    assert "203.0.113.7/32" in made_group(address, code=2)


def test_the_check_names_a_group_that_the_world_may_enter(aws: dict[str, str], tmp_path: Path):
    own = made_group("203.0.113.7/32")
    assert exposures(filled_in(tmp_path / "own.yaml", own)) == []
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    rule["IpRanges"] = [{"CidrIp": "0.0.0.0/0"}]
    opened = client("ec2").create_security_group(GroupName="open", Description="open")["GroupId"]
    client("ec2").authorize_security_group_ingress(GroupId=opened, IpPermissions=[rule])
    found = exposures(filled_in(tmp_path / "open.yaml", opened))
    assert found == [f"{opened} opens ports 22-22 to the world"]
    [unknown] = exposures(filled_in(tmp_path / "unknown.yaml", "sg-0123456789abcdef0"))
    assert "AWS did not say what sg-0123456789abcdef0 open" in unknown


def test_ray_up_makes_key_and_head_as_the_yaml_says_and_goes_to_it_by_ssh(
    aws: dict[str, str], tmp_path: Path
):
    group = made_group("203.0.113.7/32")
    client("iam").create_instance_profile(InstanceProfileName="head")
    groups_before = len(client("ec2").describe_security_groups()["SecurityGroups"])
    home, path = tmp_path / "home", filled_in(tmp_path / "cluster.yaml", group)
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("a-token")
    # In place of ssh: leaves how it was called, and reaches nobody.
    ssh, called = tmp_path / "bin" / "ssh", tmp_path / "ssh.arguments"
    ssh.parent.mkdir()
    ssh.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {called}.aside\nmv {called}.aside {called}\nexit 255\n'
    )
    ssh.chmod(0o755)
    environment = os.environ | {
        "HOME": str(home),
        "PATH": f"{ssh.parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_UP_enable_autoscaler_v2": "0",
        "RAY_TMPDIR": str(tmp_path / "ray"),
    }
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "up", "-y", "--no-config-cache", path],
            env=environment,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
    try:
        until = time.monotonic() + 500
        while not called.exists():
            said = (tmp_path / "up.log").read_text()
            assert up.poll() is None, said
            assert time.monotonic() < until, said
            time.sleep(0.2)
    finally:
        up.kill()
        up.wait()
    reservations = client("ec2").describe_instances()["Reservations"]
    [head] = [instance for each in reservations for instance in each["Instances"]]
    wanted = yaml.safe_load(path.read_text())["available_node_types"]["head"]["node_config"]
    assert head["InstanceType"] == wanted["InstanceType"]
    assert head["ImageId"] == wanted["ImageId"]
    assert [each["GroupId"] for each in head["SecurityGroups"]] == [group]
    [volume] = client("ec2").describe_volumes()["Volumes"]
    assert (volume["Size"], volume["VolumeType"]) == (200, "gp3")
    tags = {tag["Key"]: tag["Value"] for tag in head["Tags"]}
    assert (tags["ray-cluster-name"], tags["ray-node-type"]) == ("lmray", "head")
    assert head["IamInstanceProfile"]["Arn"].endswith("instance-profile/head")
    [key] = client("ec2").describe_key_pairs()["KeyPairs"]
    assert head["KeyName"] == key["KeyName"]
    # Ray made neither a role nor a group besides.
    assert client("iam").list_roles()["Roles"] == []
    assert len(client("ec2").describe_security_groups()["SecurityGroups"]) == groups_before
    arguments = called.read_text()
    assert f"{key['KeyName']}.pem" in arguments
    assert f"ubuntu@{head['PublicIpAddress']}" in arguments
