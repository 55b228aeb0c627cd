"""While an autoscaler adds one pod after the other, nothing that happens to the operator or the spec takes one back."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import watching
from fixtures_cluster import Api
from installation import Installation
from mlflow_in_cluster import Registry
from place import Object, Place, a_model, until
from wishes import Wishes

FAKE: Object = {
    "pod": {
        "nodeSelector": {"type": "kwok"},
        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}],
    },
    "traffic": {"router": "replicas"},
}
"""On a node whose pods get ready without running: no router could reach them."""


@pytest.fixture
def fake_node(api: Api) -> Iterator[None]:
    if api.is_users_own:
        pytest.skip("only a cluster that hack/cluster made has fake nodes")
    api.hack("cluster", "kwok", "--nodes=1")
    yield
    api.hack("cluster", "kwok", "--nodes=0")


@contextlib.contextmanager
def being_changed(place: Place, name: str) -> Iterator[None]:
    """Each second something of the ModelDeployment that is nobody's business, and wakes the operator all the same."""
    over = threading.Event()

    def change() -> None:
        for number in itertools.count():
            if over.wait(1):
                return
            place.patch("mdep", name, {"metadata": {"labels": {"number": str(number)}}})

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_nothing_takes_back_what_an_autoscaler_has_added(
    place: Place, operator: Installation, registry: Registry, wished: Wishes
) -> None:
    undisturbed(place, operator, registry, wished, most=4, at_once=1)


@pytest.mark.long
def test_nothing_takes_back_what_an_autoscaler_has_added_up_to_twenty_pods(
    place: Place, operator: Installation, registry: Registry, wished: Wishes, fake_node: None
) -> None:
    undisturbed(place, operator, registry, wished, most=20, at_once=2, **FAKE)


def undisturbed(
    place: Place, operator: Installation, registry: Registry, wished: Wishes, *, most: int, at_once: int, **spec: Any
) -> None:
    name = f"grows-to-{most}"
    place.apply(a_model(name, replicas=1, **spec))
    place.wait_ready(name)
    [pod] = place.pods(name)
    revision = pod["metadata"]["labels"]["moorage.dev/revision"]
    speed = {"scaleUp": {"policies": [{"type": "Pods", "value": at_once, "periodSeconds": 5}]}}
    scaling = {"minReplicas": 1, "maxReplicas": most, "metrics": [wished.metric], "behavior": speed}
    selector = f"--selector=moorage.dev/deployment={name}"

    def count() -> int:
        return int(place.get("deployment", revision)["spec"]["replicas"])

    def desired() -> int:
        return int(place.get("hpa", revision).get("status", {}).get("desiredReplicas", 0))

    with (
        watching.values(place, "deployment", revision, jsonpath="{.spec.replicas}") as counts,
        watching.values(place, "pods", selector, jsonpath="{.metadata.deletionTimestamp}") as told_to_end,
        being_changed(place, name),
    ):
        place.change(name, replicas=None, autoscaling=scaling)
        until(60, "the autoscaler has looked", lambda: desired() == 1, lambda: place.get("hpa", revision))
        wished.say(2 * most)  # for a tenth more than it has an autoscaler adds nothing
        until(60, "it has begun", lambda: count() > 1, lambda: place.get("hpa", revision))
        operator.place.kubectl("delete", "pod", operator.leader(), "--grace-period=0", "--force")
        operator.install(operator.values(registry, podAnnotations={"upgraded-at": str(count())}))
        until(120, "all are there", lambda: count() == desired() == most, lambda: place.get("hpa", revision))
        place.change(name, autoscaling=None, replicas=most)
        until(60, "the autoscaler is gone", lambda: not place.get("hpa", revision))
        place.change(name, replicas=None, autoscaling=scaling)
        until(60, "there is another one", lambda: desired() == most, lambda: place.get("hpa", revision))
        place.wait_ready(name)

    seen = list(map(int, counts))
    print(f"replicas: {seen}")  # noqa: T201
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (1, most)
    assert len(set(seen)) > most / at_once / 2, "it went up step by step"
    assert not any(told_to_end)
    place.delete("mdep", name)
    until(90, "its pods have ended", lambda: not place.find("pods", selector.removeprefix("--selector=")))
