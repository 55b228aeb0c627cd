"""What runs follows what is wanted: an alias that moves, a spec that changes, a count, a restart, a deletion."""

from __future__ import annotations

import pytest

import load
from mlflow_in_cluster import Registry
from place import Place, a_model, until

NOW = "2026-01-31T12:00:00Z"


@pytest.fixture(scope="module")
def model(registry: Registry) -> str:
    """With two versions of the same files; `champion` is the first."""
    for _ in range(2):
        registry.copy("followed")
    registry.set_alias("followed", "1")
    return "followed"


def move(place: Place, registry: Registry, model: str, version: str, name: str) -> None:
    """The alias, and wait until the ModelDeployment has followed it."""
    registry.set_alias(model, version)
    until(
        120, f"version {version} is stable", lambda: place.stable_version(name) == version, lambda: place.status(name)
    )


def replicas(place: Place, name: str) -> dict[str, int]:
    """Of each Deployment, by revision."""
    found = place.find("deployments", f"moorage.dev/deployment={name}")
    return {item["metadata"]["name"]: item["spec"]["replicas"] for item in found}


def test_an_alias_that_moves_is_followed_and_nobody_goes_without_an_answer(
    place: Place, registry: Registry, model: str
) -> None:
    place.apply(a_model("moved", model, rollout={"scaleDownDelaySeconds": 2}))
    place.wait_ready("moved")
    first = place.status("moved")["stable"]["revision"]

    with load.on(place, "moved", "digits-onnx") as running:
        move(place, registry, model, "2", "moved")
        until(
            60, "version 1 has ended", lambda: replicas(place, "moved")[first] == 0 and not place.pods("moved", first)
        )
        move(place, registry, model, "1", "moved")

    assert place.status("moved")["stable"]["revision"] == first, "the kept revision is used again"
    assert running.failed == 0, running.said
    assert running.answered > 100


@pytest.mark.long
def test_many_moves_under_load_lose_no_request(place: Place, registry: Registry, model: str) -> None:
    place.apply(a_model("restless", model, replicas=2, rollout={"scaleDownDelaySeconds": 1}))
    place.wait_ready("restless")

    with load.on(place, "restless", "digits-onnx") as running:
        for version in ["2", "1"] * 6:
            move(place, registry, model, version, "restless")

    print(running.said)  # noqa: T201
    assert running.failed == 0, running.said
    assert running.answered > 100


def test_a_change_of_the_spec_makes_a_new_revision_and_keeps_as_many_old_ones_as_wanted(place: Place) -> None:
    place.apply(a_model("changed", revisionHistoryLimit=1, rollout={"scaleDownDelaySeconds": 0}))
    place.wait_ready("changed")
    seen = [place.status("changed")["stable"]["revision"]]
    for value in ("one", "two"):
        place.change("changed", runtime={"env": [{"name": "GREETING", "value": value}]})
        place.wait_ready("changed")
        seen.append(place.status("changed")["stable"]["revision"])

    until(30, "the first revision is gone", lambda: seen[0] not in replicas(place, "changed"))
    assert replicas(place, "changed") == {seen[1]: 0, seen[2]: 1}
    assert len(set(seen)) == 3


def test_kubectl_scale_sets_the_count(place: Place) -> None:
    place.apply(a_model("scaled"))
    place.wait_ready("scaled")
    [revision] = replicas(place, "scaled")

    place.kubectl("scale", "mdep", "scaled", "--replicas=2")
    until(60, "two pods are ready", lambda: place.status("scaled")["stable"].get("readyReplicas") == 2)
    assert replicas(place, "scaled") == {revision: 2}, "no new revision"

    place.kubectl("scale", "mdep", "scaled", "--replicas=0")
    place.wait_for_reason("scaled", "ScaledToZero", kind="Available")
    until(60, "no pod is left", lambda: not place.pods("scaled"))


def test_restart_at_replaces_all_pods(place: Place) -> None:
    place.apply(a_model("restarted"))
    place.wait_ready("restarted")
    [before] = place.pods("restarted")

    place.change("restarted", restartAt=NOW)
    place.wait_ready("restarted")

    revision = place.status("restarted")["stable"]["revision"]
    [after] = place.pods("restarted", revision)
    assert after["metadata"]["name"] != before["metadata"]["name"]


def test_while_suspended_nothing_follows(place: Place, registry: Registry, model: str) -> None:
    registry.set_alias(model, "1", "quiet")
    place.apply(a_model("quiet", model, alias="quiet"))
    place.wait_ready("quiet")
    place.change("quiet", suspend=True)
    registry.set_alias(model, "2", "quiet")

    place.wait_for_reason("quiet", "Suspended")
    assert place.stable_version("quiet") == "1"
    assert len(replicas(place, "quiet")) == 1

    place.change("quiet", suspend=False)
    until(120, "version 2 is stable", lambda: place.stable_version("quiet") == "2", lambda: place.status("quiet"))


def test_with_recreate_the_old_pods_end_before_the_new_ones_begin(place: Place) -> None:
    """Each pod takes all of the node's fake GPUs: two at once find no room."""
    gpus = place.find("nodes")[0]["status"]["allocatable"].get("nvidia.com/gpu", "0")
    if gpus == "0":
        pytest.skip("the cluster has no (fake) GPUs: hack/cluster up --gpus N")
    resources = {"requests": {"cpu": "50m", "memory": "192Mi"}, "limits": {"memory": "1Gi", "nvidia.com/gpu": gpus}}
    place.apply(
        a_model(
            "alone",
            resources=resources,
            runtime={"engine": "onnxruntime", "device": "cpu"},
            rollout={"strategy": "recreate"},
        )
    )
    place.wait_ready("alone")
    place.change("alone", runtime={"env": [{"name": "GREETING", "value": "hello"}]})

    place.wait_ready("alone")
    assert sorted(replicas(place, "alone").values()) == [0, 1]


def test_a_deleted_model_deployment_takes_all_its_children_along(place: Place) -> None:
    place.apply(a_model("ended", replicas=2))
    place.wait_ready("ended")

    place.delete("mdep", "ended")

    until(60, "nothing of it is left", lambda: not place.children("ended") and not place.pods("ended"))
