"""Everything that only reality shows becomes a condition with a reason and a sentence, in seconds, and heals by itself.

Some rows at a time are applied and watched together; then each row is a test. docs/operations.md lists the same reasons.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures_cluster import Api
from installation import Installation
from mlflow_in_cluster import Registry
from mlflow_server import ADMIN, ADMIN_PASSWORD
from moorage_operator.core import conditions
from moorage_operator.core.checks import SPOKEN_BY_RUNTIME
from moorage_operator.core.reasons import Reason
from place import Object, Place, a_model, a_namespace

SECONDS = 10
"""From being visible to being told."""

AT_ONCE = 11
"""More pods that start at the same time keep a small machine busy for longer than a download waits."""

GPUS = 99
SECRET = {"name": "GREETING", "valueFrom": {"secretKeyRef": {"name": "missing-secret", "key": "word"}}}
CONFIG = {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "missing-config", "key": "word"}}}
NOWHERE = {"nodeSelector": {"no": "node"}}
POD_METRIC = {
    "type": "Pods",
    "pods": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "1"}},
}


@dataclass(frozen=True)
class World:
    """What a row may change to make its cause, and to end it."""

    place: Place
    registry: Registry
    files: Path


@dataclass(frozen=True)
class Row:
    """One way to go wrong. `model` and `spec` are those of `a_model`."""

    reason: Reason
    says: str
    model: dict[str, str] = field(default_factory=dict)
    spec: Object = field(default_factory=dict)
    condition: str = "Ready"
    by_pods: bool = True
    """Is it seen in pods, or known as soon as the ModelDeployment is there?"""
    patience: float = 0
    """Seconds for which it is no problem yet."""
    cause: Callable[[World], None] = lambda world: None
    heal: Callable[[World], None] | None = None


def change(name: str, **spec: Any) -> Callable[[World], None]:
    return lambda world: world.place.change(name, **spec)


def publish(name: str, mlmodel: Object | None = None, file: str = "") -> Callable[[World], None]:
    """The ONNX model with its MLmodel changed (None takes a key away), or with `file` made of a few bytes."""

    def do(world: World) -> None:
        folder = world.files.parent / name
        shutil.copytree(world.files, folder)
        described = yaml.safe_load((folder / "MLmodel").read_text()) | (mlmodel or {})
        kept = {key: value for key, value in described.items() if value is not None}
        (folder / "MLmodel").write_text(yaml.safe_dump(kept))
        if file:
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text("not what it seems to be")
        world.registry.publish(name, folder)

    return do


def tampered(name: str, **columns: str) -> Callable[[World], None]:
    def do(world: World) -> None:
        world.registry.copy(name)
        world.registry.set_alias(name, "1")
        world.registry.tamper(name, **columns)

    return do


def without_files(name: str) -> Callable[[World], None]:
    def do(world: World) -> None:
        version = world.registry.publish(name, world.files)
        world.registry.in_pod("rm", "-r", world.registry.files(name, version))

    return do


def registered(name: str, alias: str = "champion") -> Callable[[World], None]:
    def do(world: World) -> None:
        world.registry.copy(name)
        world.registry.set_alias(name, "1", alias)

    return do


def created(manifest: Object) -> Callable[[World], None]:
    return lambda world: world.place.apply(manifest)


def an_object(kind: str, name: str, **more: Any) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}} | more


TENSOR = {
    "inputs": json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 7]}}]),
    "outputs": None,
}
ROWS = {
    # What the platform or the API server refuses
    "image-not-allowed": Row(
        Reason.POLICY_DENIED,
        "elsewhere/runtime:1 is not allowed",
        by_pods=False,
        spec={"runtime": {"image": "elsewhere/runtime:1"}},
        heal=change("image-not-allowed", runtime={"image": None}),
    ),
    "registry-undeclared": Row(
        Reason.REGISTRY_NOT_DECLARED,
        "declared: dead, default",
        by_pods=False,
        spec={"model": {"registry": {"name": "nobody"}}},
        heal=change("registry-undeclared", model={"registry": {"name": "default"}}),
    ),
    "label-wrong": Row(
        Reason.CHILD_REFUSED,
        "label",
        by_pods=False,
        spec={"pod": {"labels": {"team": "not a label!"}}},
        heal=change("label-wrong", pod={"labels": {"team": "search"}}),
    ),
    # What the registry says
    "no-model": Row(
        Reason.MODEL_NOT_FOUND, "not-there", {"model": "not-there"}, by_pods=False, heal=registered("not-there")
    ),
    "no-version": Row(
        Reason.VERSION_NOT_FOUND,
        "99",
        {"version": "99"},
        by_pods=False,
        heal=change("no-version", model={"version": "1"}),
    ),
    "no-alias": Row(
        Reason.ALIAS_NOT_FOUND,
        "missing-alias",
        {"alias": "missing-alias"},
        by_pods=False,
        heal=lambda world: world.registry.set_alias("digits-onnx", "1", "missing-alias"),
    ),
    "not-ready": Row(
        Reason.VERSION_NOT_READY,
        "still being registered",
        {"model": "not-ready"},
        by_pods=False,
        cause=tampered("not-ready", status="PENDING_REGISTRATION"),
        heal=lambda world: world.registry.tamper("not-ready", status="READY"),
    ),
    "local-path": Row(
        Reason.SOURCE_REFUSED,
        "--serve-artifacts",
        {"model": "local-path"},
        by_pods=False,
        cause=tampered("local-path", source="/etc", storage_location="/etc"),
    ),
    "login-of-operator": Row(
        Reason.REGISTRY_UNAUTHORIZED, "refused", by_pods=False, spec={"model": {"registry": {"name": "refused"}}}
    ),
    "registry-dead": Row(
        Reason.REGISTRY_UNREACHABLE, "dead", by_pods=False, spec={"model": {"registry": {"name": "dead"}}}
    ),
    # What the download says
    "login-of-pod": Row(
        Reason.REGISTRY_UNAUTHORIZED,
        "credentialsSecret",
        {"model": "guarded"},
        spec={"model": {"registry": {"name": "secured"}}},
        heal=change("login-of-pod", model={"registry": {"credentialsSecret": "right"}}),
    ),
    "files-gone": Row(
        Reason.ARTIFACT_MISSING, "there are no files", {"model": "files-gone"}, cause=without_files("files-gone")
    ),
    "no-client": Row(
        Reason.FETCH_FAILED,
        "s3",
        {"model": "no-client"},
        cause=tampered("no-client", source="s3://bucket/model", storage_location="s3://bucket/model"),
    ),
    "secret-of-fetch": Row(
        Reason.SECRET_NOT_FOUND,
        "missing-login",
        spec={"model": {"registry": {"credentialsSecret": "missing-login"}}},
        heal=created(an_object("Secret", "missing-login")),
    ),
    # What loading the model says
    "flavor": Row(
        Reason.UNSUPPORTED_FLAVOR, "spark", {"model": "flavor"}, cause=publish("flavor", {"flavors": {"spark": {}}})
    ),
    "no-torch": Row(
        Reason.ENGINE_UNAVAILABLE,
        "engine: torch",
        {"model": "no-torch"},
        cause=publish("no-torch", {"flavors": {"pytorch": {"model_data": "data"}}}, "data/model.pt2"),
    ),
    "pickled": Row(
        Reason.PICKLE_NOT_ALLOWED,
        "allowPickle: true",
        {"model": "iris"},
        heal=change("pickled", runtime={"allowPickle": True}),
    ),
    "no-signature": Row(
        Reason.SIGNATURE_MISSING,
        "signature",
        {"model": "no-signature"},
        cause=publish("no-signature", {"signature": None}),
    ),
    "no-gpu-inside": Row(
        Reason.DEVICE_UNAVAILABLE,
        "GPU",
        spec={"runtime": {"device": "cuda"}, "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "1Gi"}}},
    ),
    "broken": Row(Reason.MODEL_LOAD_FAILED, "ONNX", {"model": "broken"}, cause=publish("broken", file="model.onnx")),
    "own-example": Row(
        Reason.WARMUP_FAILED,
        "log of the container serve",
        {"model": "own-example"},
        cause=publish("own-example", {"signature": TENSOR, "saved_input_example_info": None}),
    ),
    "memory": Row(
        Reason.OUT_OF_MEMORY,
        "raise it",
        spec={"resources": {"requests": {"memory": "24Mi"}, "limits": {"memory": "24Mi"}}},
        heal=change("memory", resources={"limits": {"memory": "512Mi"}}),
    ),
    "crashing": Row(
        Reason.CRASHED,
        "exit code 1",
        spec={"runtime": {"env": [{"name": "PYTHONHOME", "value": "/nowhere"}]}},
        heal=change("crashing", runtime={"env": []}),
    ),
    # What the node, the scheduler and the quota say
    "no-secret": Row(
        Reason.SECRET_NOT_FOUND,
        "missing-secret",
        spec={"runtime": {"env": [SECRET]}},
        heal=created(an_object("Secret", "missing-secret", stringData={"word": "hello"})),
    ),
    "no-config": Row(
        Reason.CONFIG_NOT_FOUND,
        "missing-config",
        spec={"runtime": {"env": [CONFIG]}},
        heal=created(an_object("ConfigMap", "missing-config", data={"word": "hello"})),
    ),
    "no-image": Row(
        Reason.IMAGE_PULL_FAILED,
        "moorage/not-there:1",
        spec={"runtime": {"image": "moorage/not-there:1"}},
        heal=change("no-image", runtime={"image": None}),
    ),
    "other-image": Row(
        Reason.CRASHED,
        "mlflow server",
        spec={"runtime": {"image": "moorage/mlflow:0.1.0"}},
        heal=change("other-image", runtime={"image": None}),
    ),
    "gpus": Row(
        Reason.INSUFFICIENT_GPU,
        "nvidia.com/gpu",
        spec={"resources": {"limits": {"nvidia.com/gpu": GPUS}}},
        heal=change("gpus", resources={"limits": {"nvidia.com/gpu": None}}),
    ),
    "no-node": Row(
        Reason.UNSCHEDULABLE, "node", spec={"pod": NOWHERE}, heal=change("no-node", pod={"nodeSelector": None})
    ),
    "no-account": Row(
        Reason.PODS_REFUSED,
        "missing-account",
        spec={"pod": {"serviceAccountName": "missing-account"}},
        heal=created(an_object("ServiceAccount", "missing-account")),
    ),
    "too-late": Row(
        Reason.PROGRESS_DEADLINE_EXCEEDED,
        "within 10 s",
        spec={"pod": NOWHERE, "rollout": {"progressDeadlineSeconds": 10}},
        condition="Stalled",
        patience=10,
    ),
    "no-metrics": Row(
        Reason.AUTOSCALER_WITHOUT_METRICS,
        "queue",
        spec={"autoscaling": {"maxReplicas": 2, "metrics": [POD_METRIC]}},
        condition="ScalingActive",
        patience=60,
    ),
}

SHOWN_ELSEWHERE = {
    Reason.NAME_CONFLICT: "test_drift",
    Reason.FIELD_CONFLICT: "test_drift_variants",
    Reason.SUSPENDED: "test_following",
    Reason.DIGEST_MISMATCH: "below",
    Reason.MODEL_VERSION_NOT_FOUND: "below",
    Reason.QUOTA_EXCEEDED: "below",
    Reason.CONTAINER_CANNOT_START: "tests/operator: it takes an image without our program",
    Reason.INVALID_SPEC: "tests/operator: it takes a CRD of another version",
    Reason.ARTIFACT_UNAUTHORIZED: "tests/runtime: it takes an object store",
    Reason.DISK_FULL: "tests/runtime: it takes a full disk",
    Reason.AUTOSCALER_FAILED: "tests/operator: it takes a fault of Kubernetes",
    Reason.ROLLED_BACK: "test_rollouts.py",
    Reason.GATEWAY_PENDING: "test_gateway.py",
    Reason.GATEWAY_REFUSED: "test_gateway.py",
    Reason.SIGNATURE_INCOMPATIBLE: "test_signatures.py",
    Reason.ANALYSIS_FAILED: "test_judgement.py",
    Reason.INCONCLUSIVE: "tests/operator",
    Reason.SAMPLE_RATIO_MISMATCH: "test_gateway.py",
    Reason.ROUTER_REFUSED: "tests/operator",
    Reason.CANARY_LOST: "tests/operator",
    Reason.CANARY_CRASHES: "tests/operator",
    Reason.ROUTER_UNREACHABLE: "tests/operator",
    Reason.ROUTER_UNAVAILABLE: "tests/operator",
}


HAPPENINGS = {
    Reason.SIGNATURE_PASSED_OVER, Reason.MADE_ROOM, Reason.ARM_IN_TROUBLE, Reason.ARM_JUDGED, Reason.ARM_WON,
    Reason.VERSION_RESOLVED, Reason.REVISION_CREATED, Reason.REVISION_RETIRED, Reason.DRIFT_REPAIRED, Reason.WEIGHT_SET,
    Reason.ROUTES_SET, Reason.ALIAS_MOVED_BACK, Reason.ALIAS_NOT_MOVED, Reason.REGISTRY_NOT_TOLD,
    Reason.ABORTED, Reason.SUPERSEDED, Reason.COMMAND_DONE, Reason.COMMAND_REFUSED,
}  # fmt: skip
WELL = {
    Reason.RESOLVED, Reason.RUNNING, Reason.SERVING, Reason.PROGRAMMED, Reason.PROMOTED, Reason.SCALING,
    Reason.NO_READY_PODS,
}  # fmt: skip


def test_each_problem_has_a_row_or_a_reason_why_not() -> None:
    problems = {reason for reason in Reason if conditions.is_problem(reason)} - HAPPENINGS - WELL

    assert {row.reason for row in ROWS.values()} | set(SHOWN_ELSEWHERE) == problems


@dataclass
class Told:
    """Of one row: when the cluster showed the problem, and when the ModelDeployment told it; seconds of one clock."""

    begin: float = 0
    visible: float = 0
    told: float = 0
    ended: bool = False
    condition: Object = field(default_factory=dict)
    status: Object = field(default_factory=dict)


@pytest.fixture(scope="module")
def world(place: Place, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> World:
    login = {"MLFLOW_TRACKING_USERNAME": ADMIN, "MLFLOW_TRACKING_PASSWORD": ADMIN_PASSWORD}
    place.apply(an_object("Secret", "right", stringData=login))
    registry.publish_behind_login("guarded")
    return World(place, registry, registry.download("digits-onnx", tmp_path_factory.mktemp("files")))


@pytest.fixture(scope="module")
def told(world: World) -> dict[str, Told]:
    """Some rows at a time, watched until each has told its reason, or two minutes are over; then their causes are ended.

    Those that need patience come first, and are waited for while others are watched.
    """
    found = {name: Told() for name in sorted(ROWS, key=lambda name: -ROWS[name].patience)}
    for first in range(0, len(found), AT_ONCE):
        names = list(found)[first : first + AT_ONCE]
        for name in names:
            ROWS[name].cause(world)
            look(world.place, {name: item for name, item in found.items() if item.begin and not item.ended})
        for name in names:
            found[name].begin = time.monotonic()
        world.place.apply(*(merged(a_model(name, **ROWS[name].model), {"spec": ROWS[name].spec}) for name in names))
        started = {name: item for name, item in found.items() if item.begin and not item.ended}
        is_last = first + AT_ONCE >= len(found)
        while any(is_awaited(name, item, is_last) for name, item in started.items()):
            look(world.place, started)
            time.sleep(1)
        for name, item in started.items():
            if not is_awaited(name, item, is_last=True):
                item.status, item.ended = world.place.status(name), True
                _end(world, name)
    return found


def is_awaited(name: str, item: Told, is_last: bool) -> bool:
    """One that needs patience is waited for at the end only."""
    return (is_last or not ROWS[name].patience) and not item.told and time.monotonic() < item.begin + 120


def _end(world: World, name: str) -> None:
    heal = ROWS[name].heal
    if heal:
        heal(world)
    else:
        world.place.delete("mdep", name)


def look(place: Place, found: dict[str, Told]) -> None:
    objects = place.find("mdep,deployments,pods,hpa")
    now = time.monotonic()
    for name, item in found.items():
        row = ROWS[name]
        own = [each for each in objects if each["metadata"].get("labels", {}).get("moorage.dev/deployment") == name]
        if not item.visible and (not row.by_pods or any(shows(row.reason, child) for child in own)):
            item.visible = now if row.by_pods else item.begin
        [model] = [each for each in objects if each["kind"] == "ModelDeployment" and each["metadata"]["name"] == name]
        conditions_of = {each["type"]: each for each in model.get("status", {}).get("conditions", [])}
        if not item.told and conditions_of.get(row.condition, {}).get("reason") == row.reason:
            item.told, item.condition = now, conditions_of[row.condition]
            item.visible = item.visible or now


def shows(reason: Reason, child: Object) -> bool:
    """Does a pod, a Deployment or an autoscaler say that something is wrong, and no container that it is something else?

    On a busy machine the first try may fail because the registry is slow.
    """
    status = child.get("status", {})
    bad = [item for item in status.get("conditions", []) if (item["type"], item["status"]) in FAULTS]
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return bool(bad) or any(_has_failed(item, reason) for item in containers)


FAULTS = {("PodScheduled", "False"), ("ReplicaFailure", "True"), ("ScalingActive", "False")}
CALM = {None, "ContainerCreating", "PodInitializing", "CrashLoopBackOff"}


def _has_failed(container: Object, reason: Reason) -> bool:
    waiting = container["state"].get("waiting", {}).get("reason")
    ended = [container[key].get("terminated", {}) for key in ("state", "lastState")]
    return waiting not in CALM or any(_says(reason, each) for each in ended if each.get("exitCode"))


def _says(reason: Reason, terminated: Object) -> bool:
    said = {each for each in SPOKEN_BY_RUNTIME if f'"{each}"' in terminated.get("message", "")}
    return not said or reason in said


def merged(base: Object, more: Object) -> Object:
    """Deep: `more` wins."""
    both = {key: merged(base[key], more[key]) for key in base.keys() & more.keys() if isinstance(more[key], dict)}
    return base | more | both


@pytest.mark.parametrize("name", ROWS)
def test_a_problem_is_told_within_seconds_of_being_visible(told: dict[str, Told], name: str) -> None:
    row, found = ROWS[name], told[name]

    assert found.told, f"{name} never told {row.reason}: {json.dumps(found.status, indent=1)}"
    assert row.says in found.condition["message"]
    assert found.told - found.visible <= SECONDS + row.patience, found.condition["message"]
    assert found.condition["status"] == ("True" if row.condition == "Stalled" else "False")


def test_each_problem_is_an_event_once(told: dict[str, Told], world: World) -> None:
    seen: dict[tuple[str, str, str], int] = {}
    for event in world.place.find("events"):
        if event["involvedObject"]["kind"] == "ModelDeployment" and event["type"] == "Warning":
            key = event["involvedObject"]["name"], event["reason"], event["message"]
            seen[key] = seen.get(key, 0) + 1

    assert {name for name, _, _ in seen} >= set(ROWS)
    assert {key: times for key, times in seen.items() if times > 1} == {}


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.heal])
def test_it_heals_by_itself_when_the_cause_is_gone(told: dict[str, Told], world: World, name: str) -> None:
    world.place.wait_ready(name, seconds=400)


def test_a_quota_without_room_is_told_and_heals(api: Api, operator: Installation) -> None:
    with a_namespace(api, f"moorage-e2e-{uuid.uuid4().hex[:6]}") as place:
        place.apply(an_object("ResourceQuota", "tight", spec={"hard": {"pods": "0"}}), a_model("crowded"))
        place.wait_for_reason("crowded", "QuotaExceeded", seconds=30)

        place.delete("resourcequota", "tight")

        place.wait_ready("crowded")


def test_files_that_somebody_changed_are_not_served_by_a_new_pod(world: World) -> None:
    place, registry = world.place, world.registry
    version = registry.publish("altered", world.files)
    place.apply(a_model("altered", "altered"))
    place.wait_ready("altered")
    file = registry.files("altered", version) + "/MLmodel"
    registry.in_pod("cp", file, "/data/kept")
    registry.in_pod("sh", "-c", f"echo '# changed' >> {file}")

    place.change("altered", replicas=2)

    told = place.wait_for_reason("altered", "DigestMismatch", kind="RuntimeAvailable", seconds=60)
    assert told["status"] == "False"
    assert place.condition("altered", "Available")["status"] == "True"
    registry.in_pod("cp", "/data/kept", file)
    place.wait_for_reason("altered", "Running", kind="RuntimeAvailable", seconds=400)


def test_a_version_that_was_deleted_meanwhile_is_told_by_the_pod_that_looks_for_it(world: World) -> None:
    place, registry = world.place, world.registry
    version = registry.publish("deleted", world.files)
    place.apply(a_model("deleted", "deleted", version=version))
    place.wait_ready("deleted")
    registry.client().delete_model_version("deleted", version)

    place.change("deleted", replicas=2)

    place.wait_for_reason("deleted", "ModelVersionNotFound", kind="RuntimeAvailable", seconds=60)
    assert place.condition("deleted", "Available")["status"] == "True", "what runs keeps running"
