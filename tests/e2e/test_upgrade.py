"""The life of an installation: upgraded to a next version, put back, uninstalled, installed again. No model pod or caller notices.

The next version is this chart with another image, another template and another CRD, as any next version has them. All the time
a rollout has 20 % of its requests.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator

import pytest
import yaml

import helm
import load
import watching
from fixtures_cluster import MODEL_DEPLOYMENT, Api
from installation import Installation
from mlflow_in_cluster import Registry
from place import Object, Place, a_model, a_namespace, until

NEXT = "0.1.1"
CHANGES = {
    "files/modeldeployments.moorage.dev.yaml": ("suspend:", "note: {type: string, description: New in this version.}"),
    "templates/deployment.yaml": ("terminationGracePeriodSeconds:", "hostname: next"),
}
"""By file of the chart: a line with the same indentation is put before the first one that starts so."""
MOVING, MODEL = "moving", "digits-moving"
HALFWAY = {"desired": 20, "applied": 20, "verified": True}
ROUTERS = "app.kubernetes.io/component=router"
COUNTS = ("replicas", "updatedReplicas", "availableReplicas")
DEPLOYMENT = ",".join(
    f"{{{field}}}"
    for field in (
        ".metadata.namespace",
        ".metadata.generation",
        ".status.observedGeneration",
        ".spec.replicas",
        *(f".status.{count}" for count in COUNTS),
    )
)


@pytest.fixture(scope="module")
def following(
    api: Api, operator: Installation, load_image: Callable[[str, str], None], tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """The same release, from the chart of the next version."""
    for variant in ("operator", "runtime"):
        load_image(variant, NEXT)
    chart = tmp_path_factory.mktemp("next") / "moorage"
    shutil.copytree(helm.CHART, chart)
    described = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump(described | {"version": NEXT, "appVersion": NEXT}))
    for file, (line, added) in CHANGES.items():
        text, times = re.subn(
            rf"^( *){line}", rf"\1{added}\n\1{line}", (chart / file).read_text(), count=1, flags=re.MULTILINE
        )
        assert times == 1
        (chart / file).write_text(text)
    return Installation(api, operator.namespace, chart)


@pytest.fixture(scope="module")
def beside(api: Api, operator: Installation) -> Iterator[Place]:
    """Another namespace with routers of its own."""
    with a_namespace(api, f"moorage-e2e-{uuid.uuid4().hex[:6]}") as found:
        found.apply(a_model("beside"))
        found.wait_ready("beside")
        yield found


@pytest.fixture(scope="module")
def pods(place: Place, operator: Installation, registry: Registry, beside: Place) -> Object:
    """Of four models, before anything happens: one with an autoscaler, one that fails, one of whose versions the next has 20 %."""
    for _ in range(2):
        registry.copy(MODEL)
    registry.set_alias(MODEL, "1")
    place.apply(
        a_model("plain", replicas=2),
        a_model("scaled", autoscaling={"minReplicas": 1, "maxReplicas": 2}),
        a_model("failing", pod={"nodeSelector": {"no": "node"}}),
        a_model(MOVING, MODEL, rollout={"steps": [{"setWeight": 20}, {"pause": {}}]}),
    )
    place.wait_ready("plain", "scaled", MOVING)
    place.wait_for_reason("failing", "Unschedulable")
    registry.set_alias(MODEL, "2")
    until(120, "version 2 has 20 %", lambda: is_halfway(place), lambda: place.status(MOVING))
    return identities(place)


def is_halfway(place: Place) -> bool:
    return bool(place.status(MOVING).get("weights") == HALFWAY)


@contextlib.contextmanager
def routers_renewed(place: Place, beside: Place) -> Iterator[None]:
    """Within the block or soon after, with requests by HTTP and gRPC: none fails, nor is a weight changed or two namespaces mixed."""
    places = (place, beside)
    before = {uid for each in places for uid in routers(each)}
    with (
        load.on(place, MOVING, "digits-onnx", pause=0.02, by_grpc=MODEL) as running,
        watching.weights(place, MOVING) as weights,
        watching.values(place, "deployments", "--all-namespaces", f"--selector={ROUTERS}", jsonpath=DEPLOYMENT) as seen,
    ):
        yield
        for each in places:
            until(120, "all routers are new", lambda: not before & routers(each))  # noqa: B023  # called at once
            each.wait_rolled_out("moorage-router")
        until(30, "all of them hold 20 %", lambda: is_halfway(place), lambda: place.status(MOVING))

    assert running.failed == 0, running.said
    assert running.answered > 200
    assert {weight for _, weight in weights} == {20}
    assert not at_once(seen, {each.name for each in places}), seen


def routers(place: Place) -> set[str]:
    return {pod["metadata"]["uid"] for pod in place.find("pods", ROUTERS)}


def at_once(seen: Iterable[str], namespaces: set[str]) -> list[str]:
    """Of the states of all Deployments of routers: those in which more than one had new pods that were not available yet."""
    being_renewed: set[str] = set()
    found = []
    for line in seen:
        namespace, *numbers = line.split(",")
        generation, observed, wanted, present, updated, available = (int(number or 0) for number in numbers)
        is_done = generation == observed and min(updated, available - (present - updated)) >= wanted
        being_renewed = being_renewed - {namespace} if is_done else being_renewed | {namespace}
        if namespaces <= being_renewed:
            found.append(line)
    return found


def identities(place: Place) -> Object:
    """uid and restarts of every pod of a model; the routers run the operator's image, and follow it."""
    found = place.find("pods", "app.kubernetes.io/managed-by=moorage,moorage.dev/deployment")
    return {
        pod["metadata"]["uid"]: sum(item["restartCount"] for item in pod["status"].get("containerStatuses", []))
        for pod in found
    }


def has_field(operator: Installation) -> bool:
    crd = operator.place.get("crd", MODEL_DEPLOYMENT)
    return "note" in crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]


def works(place: Place, name: str) -> Object:
    """A new model becomes Ready; returns its pod."""
    place.apply(a_model(name))
    place.wait_ready(name)
    [pod] = place.pods(name)
    return pod


def image_of(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def test_an_upgrade_restarts_no_pod_of_a_model(
    place: Place, beside: Place, operator: Installation, following: Installation, registry: Registry, pods: Object
) -> None:
    with routers_renewed(place, beside):
        following.install(operator.values(registry))
    until(
        30, "the new version leads", lambda: following.leader() in {pod["metadata"]["name"] for pod in following.pods()}
    )

    assert {image_of(pod) for pod in following.pods()} == {f"moorage/operator:{NEXT}"}
    assert {pod["spec"]["hostname"] for pod in following.pods()} == {"next"}
    assert has_field(following)
    assert image_of(works(place, "newer")) == f"moorage/runtime:{NEXT}"
    place.delete("mdep", "newer")
    until(60, "only the pods from before are left", lambda: len(identities(place)) == len(pods))
    assert identities(place) == pods


def test_restart_at_takes_the_new_image(place: Place, pods: Object) -> None:
    place.apply(a_model("renewed"))
    place.wait_ready("renewed")
    place.change("renewed", restartAt="2026-01-31T12:00:00Z")
    place.wait_ready("renewed")

    revision = place.status("renewed")["stable"]["revision"]
    assert {image_of(pod) for pod in place.pods("renewed", revision)} == {f"moorage/runtime:{NEXT}"}
    place.delete("mdep", "renewed")


def test_going_back_restarts_none_either(
    place: Place, beside: Place, operator: Installation, registry: Registry, pods: Object
) -> None:
    with routers_renewed(place, beside):
        operator.install(operator.values(registry))

    assert not has_field(operator)
    works(place, "older")
    place.delete("mdep", "older")
    until(60, "only the pods from before are left", lambda: len(identities(place)) == len(pods))
    assert identities(place) == pods


def test_model_deployments_outlive_an_uninstallation_and_are_adopted_by_the_next(
    place: Place, operator: Installation, registry: Registry, pods: Object
) -> None:
    before = {name: place.status(name)["stable"] for name in ("plain", "scaled")}
    operator.uninstall()
    place.change("plain", replicas=1)

    assert place.ask("plain", "/v2/models/digits-onnx")
    assert operator.place.get("crd", MODEL_DEPLOYMENT)
    assert identities(place) == pods

    operator.install(operator.values(registry))
    until(60, "the new operator works", lambda: len(place.pods("plain")) == 1)
    place.wait_ready("plain", "scaled")
    assert {name: place.status(name)["stable"]["revision"] for name in before} == {
        name: stable["revision"] for name, stable in before.items()
    }
    until(60, "the ended pod is gone, and no other came", lambda: identities(place).keys() < pods.keys())


def test_a_rollout_that_saw_all_of_that_goes_on(place: Place, pods: Object) -> None:
    assert is_halfway(place)
    canary = place.status(MOVING)["canary"]["revision"]
    place.command(MOVING, f"promote@{canary}/1")
    until(60, "version 2 is stable", lambda: place.stable_version(MOVING) == "2", lambda: place.status(MOVING))
