"""No GPU is free for a new version: it waits and says so, or stable makes room. The cluster advertises a few GPUs that nobody uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import load
from fixtures_cluster import Api
from installation import Installation
from mlflow_in_cluster import Registry
from place import Place, a_model, until

GPU = "nvidia.com/gpu"
ON_A_GPU = {"requests": {"cpu": "50m", "memory": "192Mi"}, "limits": {"memory": "512Mi", GPU: 1}}
ON_THE_CPU = {"device": "cpu", "engine": "onnxruntime"}
"""The GPUs are only advertised."""


def gpus_of(api: Api) -> int:
    """All that the cluster's nodes advertise, as long as no pod has one."""
    text = api.kubectl(
        "get", "nodes", f"--output=jsonpath={{.items[*].status.allocatable.{GPU.replace('.', chr(92) + '.')}}}"
    )
    return sum(int(count) for count in text.split())


@pytest.fixture(scope="module")
def model(registry: Registry) -> str:
    for _ in range(3):
        registry.copy("crowded")
    registry.set_alias("crowded", "1")
    return "crowded"


@pytest.fixture
def gpus(api: Api, operator: Installation, place: Place) -> Iterator[int]:
    """How many there are, all of them free; less than 4 say nothing. Afterwards they are free again, whatever happened."""
    found = gpus_of(api)
    if found != 4:
        pytest.skip(f"these tests are for 4 GPUs (hack/cluster up --gpus 4), this cluster has {found}")
    yield found
    place.kubectl("delete", "modeldeployments.moorage.dev", "--all")
    until(90, "all pods have ended", lambda: not place.find("pods", "moorage.dev/deployment"))


def a_crowded(name: str, model: str, *, replicas: int, **rollout: Any) -> dict[str, Any]:
    options = {"scaleDownDelaySeconds": 0, "abortScaleDownDelaySeconds": 0} | rollout
    return a_model(name, model, replicas=replicas, resources=ON_A_GPU, runtime=ON_THE_CPU, rollout=options)


def pods(place: Place, name: str) -> int:
    """Of the stable revision."""
    return len(place.pods(name, place.status(name)["stable"]["revision"]))


def test_it_waits_and_says_what_would_help(place: Place, registry: Registry, model: str, gpus: int) -> None:
    registry.set_alias(model, "1")
    place.apply(a_crowded("waits", model, replicas=4, progressDeadlineSeconds=25))
    place.wait_ready("waits")
    registry.set_alias(model, "2")
    told = place.wait_for_reason("waits", "InsufficientGPU", seconds=30)
    assert "set rollout.onNoCapacity" in told["message"]
    assert GPU in told["message"]
    place.wait_for_reason("waits", "RolledBack", seconds=60)
    assert place.condition("waits", "Available")["status"] == "True"
    assert pods(place, "waits") == 4


def test_stable_gives_up_what_it_needs_no_more_and_no_request_is_lost(
    place: Place, registry: Registry, model: str, gpus: int
) -> None:
    """Three pods on four GPUs: 34 % take one, two thirds need two, and stable gives up one at a time."""
    registry.set_alias(model, "1")
    steps: list[Any] = [
        {"setCanaryScale": {"replicas": 1}},
        {"setWeight": 34},
        {"setCanaryScale": {"replicas": 2}},
        {"setWeight": 67},
    ]
    place.apply(a_crowded("shrinks", model, replicas=3, steps=steps, onNoCapacity="shrinkStable"))
    place.wait_ready("shrinks")
    seen: set[tuple[int, int]] = set()

    def arrived() -> bool:
        status = place.status("shrinks")
        weight = status.get("weights", {}).get("desired", 0)
        seen.add((weight, status.get("capacity", {}).get("lentByStable", 0)))
        return bool(status["stable"]["modelVersion"] == "2")

    with load.on(place, "shrinks", "digits-onnx", pause=0.05) as running:
        registry.set_alias(model, "2")
        until(300, "it is stable", arrived, lambda: place.status("shrinks"))
    assert running.failed == 0, running.said
    assert {(34, 1), (67, 2)} <= seen
    assert not {(weight, lent) for weight, lent in seen if lent > {0: 0, 34: 1}.get(weight, 2)}
    assert "MadeRoom" in place.kubectl("get", "events.events.k8s.io", "--output=jsonpath={.items[*].reason}")


def test_with_recreate_stable_ends_first_and_says_so(place: Place, registry: Registry, model: str, gpus: int) -> None:
    registry.set_alias(model, "1")
    place.apply(a_crowded("recreates", model, replicas=4, onNoCapacity="recreate"))
    place.wait_ready("recreates")
    registry.set_alias(model, "2")
    told = place.wait_for_reason("recreates", "InsufficientGPU", seconds=30)
    assert "to make room" in told["message"]
    gone = place.wait_for_reason("recreates", "NoReadyPods", kind="Available", seconds=90)
    assert "to make room" in gone["message"]
    place.wait_ready("recreates")
    assert place.stable_version("recreates") == "2"


def test_a_version_that_fails_gives_the_room_back(place: Place, registry: Registry, model: str, gpus: int) -> None:
    registry.set_alias(model, "1")
    place.apply(a_crowded("returns", model, replicas=4, onNoCapacity="recreate", progressDeadlineSeconds=70))
    place.wait_ready("returns")
    place.change("returns", runtime={"env": [{"name": "PYTHONHOME", "value": "/nowhere"}]})
    place.wait_for_reason("returns", "NoReadyPods", kind="Available", seconds=90)
    place.wait_for_reason("returns", "RolledBack", seconds=180)
    until(120, "stable answers again", lambda: place.condition("returns", "Available")["status"] == "True")
    until(60, "with all of its pods", lambda: place.status("returns")["stable"]["readyReplicas"] == 4)
