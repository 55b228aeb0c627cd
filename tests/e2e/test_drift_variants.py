"""Drift of all sorts: each is repaired within seconds, whatever else others have written stays; and a fight over a field is ended."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime

import pytest

import audit
import load
from fixtures_cluster import Api
from installation import Installation
from place import Object, Place, a_model, until

log = logging.getLogger(__name__)

MODEL, ROUTER = "drifting", "moorage-router"
THEIRS = "team.example/owner"
PATIENCE = 10
MANAGED_BY, COMPONENT = "app.kubernetes.io/managed-by", "app.kubernetes.io/component"
DEPLOYMENT, REVISION = "moorage.dev/deployment", "moorage.dev/revision"
NO_OWNER: Object = {"metadata": {"ownerReferences": None}}
RESOURCES = {
    "service": "/services",
    "configmap": "/configmaps",
    "deployment": "apps/deployments",
    "controllerrevision": "apps/controllerrevisions",
    "poddisruptionbudget": "policy/poddisruptionbudgets",
}


@dataclass(frozen=True)
class Drift:
    """What somebody does to a child: a patch, or (without one) its deletion."""

    kind: str
    name: str
    patch: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.patch or 'deleted'}"


def labelled(label: str, value: str | None = "somebody") -> Object:
    return {"metadata": {"labels": {label: value}}}


def variants(revision: str) -> list[Drift]:
    """No child more than three times: the next would be a fight."""
    image = {"template": {"spec": {"containers": [{"name": "serve", "image": "moorage/no"}]}}}
    patches: dict[tuple[str, str], list[Object]] = {
        ("service", MODEL): [{"spec": {"selector": {"app": "nobody"}}}, {"spec": {"type": "NodePort"}}],
        ("service", revision): [labelled(MANAGED_BY), NO_OWNER],
        ("deployment", revision): [{"spec": {"replicas": 0}}, labelled(DEPLOYMENT), {"spec": image}],
        ("controllerrevision", revision): [labelled(REVISION), labelled(MANAGED_BY, None)],
        ("configmap", revision): [{"data": {"digest": "sha256:0"}}, labelled(DEPLOYMENT, None)],
        ("poddisruptionbudget", revision): [{"spec": {"maxUnavailable": 2}}, NO_OWNER],
        ("configmap", ROUTER): [{"data": {"router.json": '{"models":{}}'}}, labelled(COMPONENT)],
        ("poddisruptionbudget", ROUTER): [{"spec": {"maxUnavailable": 2}}, labelled(MANAGED_BY)],
        ("deployment", ROUTER): [{"spec": {"replicas": 1}}, labelled(COMPONENT, None), NO_OWNER],
    }
    changed = [Drift(*child, json.dumps(patch)) for child, found in patches.items() for patch in found]
    return changed + [Drift(*child) for child in patches if child[0] != "deployment"]


def test_drift_of_more_than_twenty_sorts_is_repaired_within_seconds(
    api: Api, place: Place, operator: Installation
) -> None:
    place.apply(a_model(MODEL, replicas=2))
    place.wait_ready(MODEL)
    began = {drift: repaired(place, drift) for drift in variants(place.status(MODEL)["stable"]["revision"])}

    took = seconds_to_repair(api, place, operator, began)
    log.info("seconds to repair: %s", {str(drift): seconds for drift, seconds in took.items()})
    assert len(took) > 20
    assert max(took.values()) <= 2, took
    place.wait_ready(MODEL)
    assert "FieldConflict" not in json.dumps(place.status(MODEL))


def repaired(place: Place, drift: Drift) -> datetime:
    """The child is as before, but for what is nobody else's business. Returns when it began."""
    place.kubectl("annotate", "--overwrite", drift.kind, drift.name, f"{THEIRS}=search")
    before, began = place.get(drift.kind, drift.name), audit.now()
    if drift.patch:
        how = "strategic" if "containers" in drift.patch else "merge"
        place.kubectl("patch", drift.kind, drift.name, f"--type={how}", f"--patch={drift.patch}")
    else:
        place.delete(drift.kind, drift.name)

    def is_as_before() -> bool:
        now = place.get(drift.kind, drift.name)
        is_another = bool(now) and now["metadata"]["uid"] != before["metadata"]["uid"]
        return bool(now) and is_another == (not drift.patch) and ours(now) == ours(before)

    until(PATIENCE, f"it is put back: {drift}", is_as_before, lambda: place.get(drift.kind, drift.name))
    annotations = place.get(drift.kind, drift.name)["metadata"]["annotations"]
    assert (THEIRS in annotations) == bool(drift.patch)
    return began


def ours(child: Object) -> Object:
    """Without what the API server gives to each object anew."""
    metadata = {name: child["metadata"].get(name) for name in ("labels", "ownerReferences")}
    spec = {name: value for name, value in child.get("spec", {}).items() if not name.startswith("clusterIP")}
    for port in spec.get("ports", []):
        port.pop("nodePort", None)
    # A ControllerRevision is made again from its Deployment, which has defaults besides; and who loses the table of ports
    # gives none a second time that was freed a moment ago.
    data = {
        name: text
        for name, text in child.get("data", {}).items()
        if child["kind"] == "ConfigMap" and name != "ports.json"
    }
    return {"metadata": metadata, "spec": spec, "data": data}


def seconds_to_repair(
    api: Api, place: Place, operator: Installation, began: dict[Drift, datetime]
) -> dict[Drift, float]:
    """From each drift to the write that repairs it, by the API server's clock."""
    person = place.kubectl("auth", "whoami", "--output=jsonpath={.status.userInfo.username}")
    since = min(began.values())
    by_person, by_operator = (
        [item for item in audit.writes(api, user, since) if item.namespace == place.name and item.code < 300]
        for user in (person, audit.service_account(operator.namespace))
    )

    def first(writes: list[audit.Request], drift: Drift, since: datetime) -> datetime:
        target = (RESOURCES[drift.kind], drift.name)
        return next(item.at for item in writes if (item.resource, item.name) == target and item.at > since)

    found = {}
    for drift, moment in began.items():
        at = first(by_person, drift, moment)
        found[drift] = (first(by_operator, drift, at) - at).total_seconds()
    return found


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_field_that_another_manager_takes_again_and_again_is_told_and_not_fought_for(
    api: Api, place: Place, operator: Installation
) -> None:
    place.apply(a_model("fought", replicas=2))
    place.wait_ready("fought")
    since = audit.now()

    with load.on(place, "fought", "digits-onnx", pause=0.05) as running:
        for _ in range(25):
            take(place, "fought")
        told = place.wait_for_reason("fought", "FieldConflict", kind="TrafficProgrammed", seconds=10)
        minutes = (audit.now() - since).total_seconds() / 60
        writes = writes_to(api, place, operator, "fought", since)
        assert 3 <= len(writes) <= 4 + minutes / 2, writes
        until(150, "it is put back once more", lambda: app_name(place, "fought") == "moorage-runtime", every=2)

    assert running.failed == 0, running.said
    assert running.answered > 200
    assert told["status"] == "True"
    assert "metadata.labels.app.kubernetes.io/name, by contender" in told["message"]
    assert place.condition("fought", "Ready")["status"] == "True"
    assert len(warnings(place, "fought")) == 1
    until(
        620, "it is no fight any more", lambda: is_programmed(place, "fought"), lambda: place.status("fought"), every=5
    )
    assert len(writes_to(api, place, operator, "fought", since)) <= len(writes) + 1


def take(place: Place, service: str) -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": service, "labels": {"app.kubernetes.io/name": "theirs"}},
    }
    place.kubectl(
        "apply", "--server-side", "--force-conflicts", "--field-manager=contender", "--filename=-", stdin=json.dumps(manifest)
    )  # fmt: skip


def app_name(place: Place, service: str) -> str:
    return str(place.get("service", service)["metadata"]["labels"]["app.kubernetes.io/name"])


def writes_to(api: Api, place: Place, operator: Installation, service: str, since: datetime) -> list[audit.Request]:
    found = audit.writes(api, audit.service_account(operator.namespace), since)
    return [item for item in found if (item.namespace, item.resource, item.name) == (place.name, "/services", service)]


def warnings(place: Place, model: str) -> list[Object]:
    of_model = (event for event in place.find("events") if event["involvedObject"]["name"] == model)
    return [event for event in of_model if event["reason"] == "FieldConflict"]


def is_programmed(place: Place, model: str) -> bool:
    return bool(place.condition(model, "TrafficProgrammed").get("reason") == "Programmed")
