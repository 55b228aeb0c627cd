"""The life of an installation: upgraded to a next version, put back, uninstalled, installed again. No model pod notices.

The next version is this chart with another image, another template and another CRD, as any next version has them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable

import pytest
import yaml

import helm
from fixtures_cluster import MODEL_DEPLOYMENT, Api
from installation import Installation
from mlflow_in_cluster import Registry
from place import Object, Place, a_model, until

NEXT = "0.1.1"
CHANGES = {
    "files/modeldeployments.moorage.dev.yaml": ("suspend:", "note: {type: string, description: New in this version.}"),
    "templates/deployment.yaml": ("terminationGracePeriodSeconds:", "hostname: next"),
}
"""By file of the chart: a line with the same indentation is put before the first one that starts so."""


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
def pods(place: Place, operator: Installation) -> Object:
    """Of three models, before anything happens: one with an autoscaler, one that fails."""
    place.apply(
        a_model("plain", replicas=2),
        a_model("scaled", autoscaling={"minReplicas": 1, "maxReplicas": 2}),
        a_model("failing", pod={"nodeSelector": {"no": "node"}}),
    )
    place.wait_ready("plain", "scaled")
    place.wait_for_reason("failing", "Unschedulable")
    return identities(place)


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
    place: Place, operator: Installation, following: Installation, registry: Registry, pods: Object
) -> None:
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
    place: Place, operator: Installation, registry: Registry, pods: Object
) -> None:
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
