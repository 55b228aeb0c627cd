"""The kubelet evicts pods for the disk that they take: others come instead, and the records that stay of them mean nothing.

A whole node's disk is not filled here: the pods exceed a limit of their own, and are evicted just as for DiskPressure. Where there
is one node only, its pressure would evict all pods of a model and let no other one in until it has passed.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

import load
from mlflow_in_cluster import Registry
from place import Object, Place, a_model, until

NAME = "filled"
ROLLOUT: dict[str, Any] = {"steps": [{"setWeight": 20}, {"pause": {}}], "scaleDownDelaySeconds": 2}
HALFWAY = {"desired": 20, "applied": 20, "verified": True}
RESOURCES: Object = {
    "requests": {"cpu": "50m", "memory": "192Mi"},
    "limits": {"memory": "512Mi", "ephemeral-storage": "64Mi"},
}
FILL = "open('/tmp/full', 'wb').write(bytes(128 << 20))"
IN_FLIGHT = 6
"""Callers of the load: so many requests may be on their way in one place."""


def pods(place: Place, revision: str) -> list[Object]:
    return [pod for pod in place.pods(NAME, revision) if pod["status"]["phase"] == "Running"]


def has_ended(place: Place, pod: str) -> bool:
    """Its record stays; it says Succeeded, and not that it was evicted, if the process ended well when it was told to."""
    return place.get("pod", pod)["status"]["phase"] in ("Failed", "Succeeded")


def evict_one(place: Place, *revisions: str) -> list[str]:
    """Pod of each, by the kubelet, which measures volumes once a minute; returns their names."""
    found = [str(pods(place, revision)[0]["metadata"]["name"]) for revision in revisions]
    for pod in found:
        place.kubectl("exec", pod, "--container=serve", "--", "python", "-c", FILL)
    for pod in found:
        until(150, f"{pod} is evicted", lambda: has_ended(place, pod), lambda: place.get("pod", pod))  # noqa: B023  # called at once
    return found


@pytest.mark.long
def test_pods_that_the_kubelet_evicts_are_replaced_and_put_nothing_back(place: Place, registry: Registry) -> None:
    for _ in range(2):
        registry.copy(NAME)
    registry.set_alias(NAME, "1")
    place.apply(a_model(NAME, NAME, replicas=2, resources=RESOURCES, rollout=ROLLOUT))
    place.wait_ready(NAME)
    stable = place.status(NAME)["stable"]["revision"]
    registry.set_alias(NAME, "2")
    until(120, "version 2 has 20 %", lambda: place.status(NAME).get("weights") == HALFWAY, lambda: place.status(NAME))
    canary = place.status(NAME)["canary"]["revision"]

    with load.on(place, NAME, "digits-onnx", pause=0.02, by_grpc=NAME) as running:
        evicted = evict_one(place, stable, canary)

        def all_are_ready() -> bool:
            status = place.status(NAME)
            ready = [status[role]["readyReplicas"] for role in ("stable", "canary")]
            return ready == [len(pods(place, revision)) for revision in (stable, canary)] == [2, 2]

        until(90, "another pod has come for each", all_are_ready, lambda: place.status(NAME))
        assert place.status(NAME)["replicas"] == 2, "of stable"
        assert place.condition(NAME, "Ready")["reason"] == "Paused"
        assert place.condition(NAME, "RuntimeAvailable")["status"] == "True"
        place.command(NAME, f"promote@{canary}/1")
        place.wait_ready(NAME)
        until(60, "the old revision has gone", lambda: not pods(place, stable), lambda: place.status(NAME))

    assert all(has_ended(place, pod) for pod in evicted), "the records are still there"
    lost = re.findall(r"^[0-9.]+ failed: .*", running.said, re.MULTILINE)
    print(f"{running.answered} answered, failed: {lost}")  # noqa: T201
    assert len([text for text in lost if "onnection refused" not in text]) <= IN_FLIGHT * len(evicted), running.said
    history = [item["result"] for item in place.status(NAME)["history"]]
    assert history == ["Promoted", "Promoted"]
