"""Children that somebody changes or deletes are put back; what belongs to somebody else is left alone."""

from __future__ import annotations

import json

import pytest

from place import Object, Place, a_model, until

SECONDS = 10


@pytest.fixture(scope="module")
def revision(place: Place) -> str:
    """Of the model `kept`, with two pods."""
    place.apply(a_model("kept", replicas=2))
    place.wait_ready("kept")
    return str(place.status("kept")["stable"]["revision"])


def selector(place: Place, name: str = "kept") -> Object:
    return dict(place.get("service", name).get("spec", {}).get("selector", {}))


def test_a_changed_field_is_put_back_with_an_event_that_names_it(place: Place, revision: str) -> None:
    before = selector(place)
    place.patch("service", "kept", {"spec": {"selector": {"app": "nobody"}}})

    until(SECONDS, "the selector is as before", lambda: selector(place) == before, lambda: selector(place))
    until(
        SECONDS,
        "an event tells it",
        lambda: [event for event in place.find("events") if event["reason"] == "DriftRepaired"],
    )


@pytest.mark.parametrize("kind", ["service", "poddisruptionbudget", "configmap", "controllerrevision"])
def test_a_deleted_child_is_made_again(place: Place, revision: str, kind: str) -> None:
    before = place.get(kind, revision)
    place.delete(kind, revision)

    def is_another() -> bool:
        now = place.get(kind, revision)
        return bool(now) and now["metadata"]["uid"] != before["metadata"]["uid"]

    until(SECONDS, f"another {kind}", is_another)


def test_a_deleted_stable_service_and_deployment_are_made_again(place: Place, revision: str) -> None:
    place.delete("service", "kept")
    place.delete("deployment", revision)

    until(SECONDS, "the Service", lambda: selector(place).get("app.kubernetes.io/component") == "router")
    place.wait_ready("kept")
    until(60, "two pods are ready", lambda: place.status("kept")["stable"].get("readyReplicas") == 2)


def test_a_container_that_somebody_adds_to_the_pods_is_taken_out(place: Place, revision: str) -> None:
    sidecar = {
        "op": "add",
        "path": "/spec/template/spec/containers/-",
        "value": {"name": "sidecar", "image": "moorage/no"},
    }
    place.kubectl("patch", "deployment", revision, "--type=json", f"--patch={json.dumps([sidecar])}")

    def containers() -> list[str]:
        return [item["name"] for item in place.get("deployment", revision)["spec"]["template"]["spec"]["containers"]]

    until(SECONDS, "only our container is left", lambda: containers() == ["serve"], containers)
    until(60, "two pods are ready", lambda: place.status("kept")["stable"].get("readyReplicas") == 2)


def test_fields_of_others_outside_the_pods_are_kept(place: Place, revision: str) -> None:
    place.kubectl("annotate", "deployment", revision, "team.example/owner=search")
    place.patch("service", "kept", {"spec": {"selector": {"app": "nobody"}}})

    until(SECONDS, "the operator has looked", lambda: "app" not in selector(place))
    assert place.get("deployment", revision)["metadata"]["annotations"]["team.example/owner"] == "search"


def test_a_service_of_the_users_own_with_the_same_name_is_left_alone(place: Place) -> None:
    own = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "taken"},
        "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]},
    }
    place.apply(own)
    before = place.get("service", "taken")
    place.apply(a_model("taken"))

    told = place.wait_for_reason("taken", "NameConflict", seconds=30)

    assert "taken" in told["message"]
    assert place.get("service", "taken") == before
    place.delete("service", "taken")
    place.wait_ready("taken")
    place.ask("taken", "/v2/models/digits-onnx")


def test_a_name_taken_by_another_model_deployment_is_left_alone(place: Place) -> None:
    """`<name>` of one is a Service; a hand-made object with our labels and no owner is no child either."""
    labels = {"moorage.dev/deployment": "imitated", "app.kubernetes.io/managed-by": "moorage"}
    own = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "imitated", "labels": labels},
        "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]},
    }
    place.apply(own)
    place.apply(a_model("imitated"))

    place.wait_for_reason("imitated", "NameConflict", seconds=30)

    assert selector(place, "imitated") == {"app": "shop"}
