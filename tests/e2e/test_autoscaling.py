"""The HorizontalPodAutoscaler: it scales by load, and takes over and hands back the count without a dip."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

import load
import watching
from place import Place, a_model, until

EXAMPLE = Path(__file__).parents[2] / "examples/iris/modeldeployment.yaml"


def ready(place: Place, name: str) -> int:
    return int(place.status(name)["stable"].get("readyReplicas", 0))


def test_load_scales_up_and_calm_scales_down(place: Place) -> None:
    place.apply(yaml.safe_load(EXAMPLE.read_text()))
    place.wait_ready("iris")
    until(60, "one pod without load", lambda: len(place.pods("iris")) == 1)

    with load.on(place, "iris", "iris", pause=0) as running:
        until(180, "three pods are ready", lambda: ready(place, "iris") == 3, lambda: place.find("hpa"), every=1)
    until(180, "one pod is left", lambda: len(place.pods("iris")) == 1, lambda: place.find("hpa"), every=1)

    assert running.failed == 0, running.said
    assert running.answered > 100
    assert place.condition("iris", "Ready")["status"] == "True"


def test_the_count_changes_hands_without_a_dip(place: Place) -> None:
    place.apply(a_model("handed", replicas=3))
    place.wait_ready("handed")
    [deployment] = place.find("deployments", "moorage.dev/deployment=handed")
    name = deployment["metadata"]["name"]

    with watching.values(place, "deployment", name, jsonpath="{.spec.replicas}") as seen:
        place.change("handed", replicas=None, autoscaling={"minReplicas": 2, "maxReplicas": 4})
        until(30, "an autoscaler has taken over", lambda: bool(place.get("hpa", name).get("status")))
        until(30, "the operator has let the count go", lambda: "moorage" not in owners_of_replicas(place, name))
        place.change("handed", autoscaling=None, replicas=3)
        until(30, "the autoscaler is gone", lambda: not place.get("hpa", name))
        until(30, "the operator owns the count", lambda: "moorage" in owners_of_replicas(place, name))

    assert min(map(int, seen)) >= 2, seen
    assert seen[-1] == "3"
    assert len(place.find("deployments", "moorage.dev/deployment=handed")) == 1, "no new revision"


def owners_of_replicas(place: Place, name: str) -> set[str]:
    """Field managers that own spec.replicas."""
    text = place.kubectl("get", "deployment", name, "--show-managed-fields", "--output=json")
    managers = json.loads(text)["metadata"]["managedFields"]
    return {item["manager"] for item in managers if "f:replicas" in item["fieldsV1"].get("f:spec", {})}


def test_an_autoscaled_model_begins_with_its_least_number(place: Place) -> None:
    place.apply(a_model("least", autoscaling={"minReplicas": 2, "maxReplicas": 4}))
    place.wait_ready("least")

    assert ready(place, "least") == 2
    place.change("least", runtime={"env": [{"name": "GREETING", "value": "hello"}]})
    place.wait_ready("least")
    assert ready(place, "least") == 2
