"""docs/kuberay.yaml against what KubeRay wants of a RayCluster; no Kubernetes is at hand here."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    text = (ROOT / "docs" / "kuberay.yaml").read_text()
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_ray_is_the_version_that_the_constraints_name(documents: dict[str, Any]):
    spec = documents["RayCluster"]["spec"]
    assert f"ray=={spec['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    for pod in pods(documents["RayCluster"]):
        assert pod["containers"][0]["image"].endswith(f":{spec['rayVersion']}")


def test_clients_show_a_token_and_nothing_is_open_to_the_world(documents: dict[str, Any]):
    spec = documents["RayCluster"]["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    mine = {"matchLabels": {"ray.io/cluster": documents["RayCluster"]["metadata"]["name"]}}
    policy = documents["NetworkPolicy"]["spec"]
    assert policy["podSelector"] == mine
    assert policy["ingress"] == [{"from": [{"podSelector": mine}]}]


def test_gpu_workers_come_from_none_and_go_when_idle(documents: dict[str, Any]):
    spec = documents["RayCluster"]["spec"]
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["idleTimeoutSeconds"] <= 900
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    [workers] = spec["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == 0 < workers["maxReplicas"]
    # KubeRay tells Ray the limits; Kubernetes wants requests of GPUs to equal them.
    resources = workers["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "1"


def test_every_pod_mounts_the_volume_that_many_nodes_may_write_to(documents: dict[str, Any]):
    claim = documents["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(documents["RayCluster"]):
        [volume] = [each for each in pod["volumes"] if "persistentVolumeClaim" in each]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        mounts = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
        assert mounts[volume["name"]] == "/shared"


def test_a_worker_that_is_taken_away_runs_the_script_that_waits_for_checkpoints(
    documents: dict[str, Any],
):
    _, worker = pods(documents["RayCluster"])
    command = worker["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["python", "/scripts/before_the_end.py"]
    assert worker["terminationGracePeriodSeconds"] >= 120
    scripts = documents["ConfigMap"]
    [volume] = [each for each in worker["volumes"] if "configMap" in each]
    assert volume["configMap"]["name"] == scripts["metadata"]["name"]
    assert {"name": volume["name"], "mountPath": "/scripts"} in worker["containers"][0][
        "volumeMounts"
    ]
    written = (ROOT / "scripts" / "before_the_end.py").read_text()
    assert scripts["data"] == {"before_the_end.py": written}


def test_values_of_start_parameters_and_variables_are_text(documents: dict[str, Any]):
    spec = documents["RayCluster"]["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        for variable in group["template"]["spec"]["containers"][0]["env"]:
            assert isinstance(variable["value"], str)
