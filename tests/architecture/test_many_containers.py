"""The files for many machines: workers around a PostgreSQL, with Compose and on Kubernetes.

No cluster is here.  Each file is read, each command is parsed by the program's own parser, and each field is held
against those that the interfaces have (https://kubernetes.io/docs/reference/kubernetes-api/ of 1.31,
https://github.com/compose-spec/compose-spec), so that a wrong name is found.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gridsearch.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
WORKERS = yaml.safe_load((DOCKER / "compose.workers.yaml").read_text())
OURS = {name: service for name, service in WORKERS["services"].items() if name != "postgresql"}
RESOURCES = {
    f"{path.stem} {each['kind']}": each
    for path in sorted((DOCKER / "kubernetes").glob("*.yaml"))
    for each in yaml.safe_load_all(path.read_text())
}
RAY_JOB, RAY_CLAIM = yaml.safe_load_all((DOCKER / "kuberay.yaml").read_text())

# Of each kind of object the fields that are used here, by type: a name stands for another kind, [] for a list of it.
KINDS = {
    "PersistentVolumeClaim": {"apiVersion": str, "kind": str, "metadata": "Meta", "spec": "ClaimSpec"},
    "Job": {"apiVersion": str, "kind": str, "metadata": "Meta", "spec": "JobSpec"},
    "RayJob": {"apiVersion": str, "kind": str, "metadata": "Meta", "spec": "RayJobSpec"},
    "RayJobSpec": {
        "entrypoint": str,
        "shutdownAfterJobFinishes": bool,
        "backoffLimit": int,
        "rayClusterSpec": "RayCluster",
    },
    "RayCluster": {
        "rayVersion": str,
        "authOptions": "RayAuth",
        "enableInTreeAutoscaling": bool,
        "autoscalerOptions": "RayScaling",
        "headGroupSpec": "RayGroup",
        "workerGroupSpecs": ["RayGroup"],
    },
    "RayAuth": {"mode": str, "secretName": str},
    "RayScaling": {"idleTimeoutSeconds": int},
    "RayGroup": {
        "groupName": str,
        "replicas": int,
        "minReplicas": int,
        "maxReplicas": int,
        "rayStartParams": dict,
        "template": "PodTemplate",
    },
    "Meta": {"name": str, "labels": dict},
    "ClaimSpec": {"accessModes": [str], "resources": "Resources", "storageClassName": str},
    "JobSpec": {
        "parallelism": int,
        "backoffLimit": int,
        "podFailurePolicy": "FailurePolicy",
        "template": "PodTemplate",
        "ttlSecondsAfterFinished": int,
    },
    "FailurePolicy": {"rules": ["FailureRule"]},
    "FailureRule": {"action": str, "onExitCodes": "ExitCodes", "onPodConditions": ["Condition"]},
    "ExitCodes": {"containerName": str, "operator": str, "values": [int]},
    "Condition": {"type": str, "status": str},
    "PodTemplate": {"metadata": "Meta", "spec": "PodSpec"},
    "PodSpec": {
        "restartPolicy": str,
        "terminationGracePeriodSeconds": int,
        "automountServiceAccountToken": bool,
        "enableServiceLinks": bool,
        "securityContext": "PodSecurity",
        "containers": ["Container"],
        "volumes": ["Volume"],
    },
    "PodSecurity": {
        "runAsNonRoot": bool,
        "runAsUser": int,
        "runAsGroup": int,
        "fsGroup": int,
        "fsGroupChangePolicy": str,
        "seccompProfile": "Seccomp",
    },
    "Seccomp": {"type": str},
    "Container": {
        "name": str,
        "image": str,
        "args": [str],
        "env": ["Variable"],
        "resources": "Resources",
        "securityContext": "Security",
        "volumeMounts": ["Mount"],
        "ports": ["Port"],
        "readinessProbe": "Probe",
        "livenessProbe": "Probe",
    },
    "Security": {
        "allowPrivilegeEscalation": bool,
        "readOnlyRootFilesystem": bool,
        "capabilities": "Capabilities",
    },
    "Capabilities": {"drop": [str]},
    "Resources": {"requests": dict, "limits": dict},
    "Variable": {"name": str, "value": str, "valueFrom": "Source"},
    "Source": {"secretKeyRef": "Key"},
    "Key": {"name": str, "key": str},
    "Mount": {"name": str, "mountPath": str, "readOnly": bool},
    "Port": {"containerPort": int, "name": str},
    "Probe": {
        "exec": "Command",
        "initialDelaySeconds": int,
        "periodSeconds": int,
        "timeoutSeconds": int,
        "failureThreshold": int,
    },
    "Command": {"command": [str]},
    "Volume": {"name": str, "persistentVolumeClaim": "Claim", "emptyDir": "Empty", "secret": "Secret"},
    "Claim": {"claimName": str},
    "Empty": {"medium": str, "sizeLimit": str},
    "Secret": {"secretName": str, "defaultMode": int, "items": ["Item"]},
    "Item": {"key": str, "path": str},
}
SERVICE_FIELDS = {
    *("image", "build", "command", "user", "read_only", "cap_drop", "security_opt", "init", "pids_limit"),
    *("tmpfs", "volumes", "secrets", "environment", "depends_on", "restart", "stop_grace_period"),
    *("healthcheck", "ports", "shm_size"),
}


def conform(value, kind, where: str) -> None:
    """Hold a value against its kind."""
    if isinstance(kind, list):
        assert isinstance(value, list), where
        for i, each in enumerate(value):
            conform(each, kind[0], f"{where}[{i}]")
    elif isinstance(kind, str):
        assert isinstance(value, dict), where
        for name, each in value.items():
            assert name in KINDS[kind], f"{where} has no field {name}"
            conform(each, KINDS[kind][name], f"{where}.{name}")
    else:
        assert type(value) is kind, f"{where}: {value!r}"


def pods():
    for name, resource in RESOURCES.items():
        if resource["kind"] == "Job":
            yield name, resource["spec"]["template"]["spec"]


PODS = dict(pods())


# Kubernetes


@pytest.mark.parametrize("name", RESOURCES)
def test_a_resource_has_no_field_that_its_kind_lacks(name):
    resource = RESOURCES[name]
    conform(resource, resource["kind"], name)
    versions = {"Job": "batch/v1", "PersistentVolumeClaim": "v1"}
    assert resource["apiVersion"] == versions[resource["kind"]]


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_no_rights_that_it_does_not_need(name):
    pod = PODS[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]["limits"]) >= {"cpu", "memory"}


@pytest.mark.parametrize("name", PODS)
def test_what_a_pod_mounts_is_there_and_all_that_is_written_is_mounted(name):
    pod = PODS[name]
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in pod["containers"]:
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert {"/runs", "/cache", "/tmp"} <= set(mounts)
        assert {mount["name"] for mount in mounts.values()} == volumes


@pytest.mark.parametrize("name", PODS)
def test_a_pod_gets_the_store_and_its_password_from_the_secret_alone(name):
    pod = PODS[name]
    (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    for container in pod["containers"]:
        variables = {each["name"]: each for each in container["env"]}
        key = variables["GRIDSEARCH_STORE"]["valueFrom"]["secretKeyRef"]
        assert (key["name"], key["key"]) == (secret["secretName"], "url")
        folder = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == "password")
        file = variables["GRIDSEARCH_STORE_PASSWORD_FILE"]["value"]
        assert file == f"{folder}/{secret['items'][0]['path']}"


@pytest.mark.parametrize("name", PODS)
def test_a_pod_runs_a_command_that_the_program_takes(name):
    for container in PODS[name]["containers"]:
        build_parser().parse_args(container["args"])


def test_the_workers_end_with_the_grid_and_have_as_many_processes_as_cores():
    job = RESOURCES["workers Job"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    words = build_parser().parse_args(container["args"])
    assert words.until_empty
    assert str(words.workers) == container["resources"]["limits"]["cpu"]
    assert job["parallelism"] > 1
    assert "completions" not in job, "a work queue has none"
    assert job["template"]["spec"]["restartPolicy"] == "Never", "a failure policy asks for it"


def test_exit_codes_that_no_other_pod_would_better_end_the_job():
    rules = RESOURCES["workers Job"]["spec"]["podFailurePolicy"]["rules"]
    codes = next(rule["onExitCodes"] for rule in rules if "onExitCodes" in rule)
    assert (codes["operator"], codes["values"]) == ("In", [2, 4])
    assert codes["containerName"] == "worker"


def test_the_grid_and_the_workers_share_one_volume_that_many_nodes_write():
    claim = RESOURCES["grid PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in PODS.values():
        (runs,) = [v["persistentVolumeClaim"] for v in pod["volumes"] if v["name"] == "runs"]
        assert runs["claimName"] == claim["metadata"]["name"]


# KubeRay


def test_a_ray_job_has_no_field_that_its_kind_lacks_and_no_rights_that_it_does_not_need():
    conform(RAY_JOB, "RayJob", "kuberay")
    conform(RAY_CLAIM, "PersistentVolumeClaim", "kuberay")
    cluster = RAY_JOB["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    pods = [each["template"]["spec"] for each in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            each["name"] for each in pod["volumes"]
        }
        compile(container["readinessProbe"]["exec"]["command"][-1], "probe", "exec")
    assert RAY_CLAIM["metadata"]["name"] != RESOURCES["grid PersistentVolumeClaim"]["metadata"]["name"]


# Compose


def test_the_services_are_a_database_a_grid_workers_and_a_dashboard():
    assert set(WORKERS["services"]) == {"postgresql", "grid", "worker", "dashboard"}
    assert set(WORKERS) - {"x-hardened", "x-service"} == {"name", "services", "volumes", "secrets"}


@pytest.mark.parametrize("name", WORKERS["services"])
def test_a_service_has_known_fields_and_no_rights_that_it_does_not_need(name):
    service = WORKERS["services"][name]
    assert set(service) <= SERVICE_FIELDS
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].split(":")[0] not in ("", "0", "root")
    assert {volume.split(":")[0] for volume in service["volumes"]} <= set(WORKERS["volumes"])


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_runs_a_command_that_the_program_takes(name):
    service = OURS[name]
    build_parser().parse_args(service["command"])
    check = service.get("healthcheck", {}).get("test", ["CMD", "gridsearch", "status"])
    if check[1] == "gridsearch":
        build_parser().parse_args(check[2:])
    else:
        compile(check[-1], name, "exec")
    for word in service["command"]:
        assert not word.endswith(".toml") or (ROOT / "studies" / word).is_file()


def test_all_services_take_the_password_from_one_secret_file_and_no_variable_holds_it():
    for name, service in WORKERS["services"].items():
        assert service["secrets"] == ["store_password"]
        variables = service["environment"]
        file = "POSTGRES_PASSWORD_FILE" if name == "postgresql" else "GRIDSEARCH_STORE_PASSWORD_FILE"
        assert variables[file] == "/run/secrets/store_password"
        assert not any(key.endswith("PASSWORD") for key in variables)
    assert "/docker/store_password" in (ROOT / ".gitignore").read_text().split()


def test_the_services_name_the_database_that_is_there():
    database = WORKERS["services"]["postgresql"]["environment"]
    user, name = database["POSTGRES_USER"], database["POSTGRES_DB"]
    for service in OURS.values():
        assert service["environment"]["GRIDSEARCH_STORE"] == f"postgresql://{user}@postgresql/{name}"


def test_workers_begin_when_the_grid_is_there_and_any_number_of_them_may():
    worker = OURS["worker"]
    assert worker["depends_on"]["grid"] == {"condition": "service_completed_successfully"}
    assert not {"container_name", "hostname", "ports"} & set(worker), "one name would be one worker"
    assert [name for name, service in WORKERS["services"].items() if "ports" in service] == ["dashboard"]
    assert OURS["dashboard"]["ports"] == ["127.0.0.1:8080:8080"]


def test_the_workers_image_is_built_as_that_of_the_runner():
    runner = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["runner"]
    for service in OURS.values():
        assert (service["build"], service["image"]) == (runner["build"], runner["image"])
