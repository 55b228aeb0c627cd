"""Rollouts that meet: of two models side by side, one in the scale-down delay of another, one for a new version and a new spec."""

from __future__ import annotations

from typing import Any

import pytest

import load
import watching
from mlflow_in_cluster import Registry
from place import Place, a_model, until

WEIGHTS = (20, 40, 60)
STEPS = [step for weight in WEIGHTS for step in ({"setWeight": weight}, {"pause": {"duration": 5}})]
FAST: dict[str, Any] = {"steps": STEPS, "scaleDownDelaySeconds": 2, "abortScaleDownDelaySeconds": 2}
HELLO = [{"name": "GREETING", "value": "hello"}]


@pytest.fixture(scope="module")
def model(registry: Registry) -> str:
    """With three versions of the same files; nobody follows `champion`."""
    for _ in range(3):
        registry.copy("meeting")
    return "meeting"


def moves(place: Place, name: str) -> bool:
    """Have both versions some of the requests?"""
    return 0 < int(place.status(name).get("weights", {}).get("applied", 0)) < 100


def wait_for_version(place: Place, name: str, version: str) -> None:
    until(120, f"it is version {version}", lambda: place.stable_version(name) == version, lambda: place.status(name))


def names_of(place: Place, name: str, revision: str) -> set[str]:
    return {pod["metadata"]["name"] for pod in place.pods(name, revision)}


def test_two_models_move_side_by_side_and_one_of_them_goes_unnoticed(
    place: Place, registry: Registry, model: str
) -> None:
    one, other = names = ("one", "other")
    registry.set_alias(model, "1", "both")
    rollout = FAST | {"steps": [{"setWeight": 10}, {"pause": {}}, *STEPS]}
    place.apply(*(a_model(name, model, alias="both", replicas=1, rollout=rollout) for name in names))
    place.wait_ready(*names)

    def begin(version: str) -> None:
        """Neither goes on before both are there."""
        registry.set_alias(model, version, "both")
        for name in names:
            place.wait_for_reason(name, "Paused")
            assert moves(place, name)

    def go_on(name: str) -> None:
        place.command(name, f"promote@{place.status(name)['canary']['revision']}")

    with load.on(place, one, "digits-onnx", pause=0.1, by_grpc=model, name="load-one") as of_one:
        with load.on(place, other, "digits-onnx", pause=0.1, by_grpc=model, name="load-other") as of_other:
            begin("2")
            for name in names:
                go_on(name)
            for name in names:
                wait_for_version(place, name, "2")
        begin("3")
        with watching.weights(place, one) as seen:
            go_on(one)
            place.delete("mdep", other)
            until(60, "its pods have been told to end", lambda: not place.pods(other))
            wait_for_version(place, one, "3")

    assert of_one.failed == of_other.failed == 0, of_one.said + of_other.said
    assert min(of_one.answered, of_other.answered) > 200
    for kind in ("desired", "applied"):
        weights = [weight for of, weight in seen if of == kind]
        assert weights == sorted(weights), seen
        assert set(WEIGHTS) <= set(weights), seen


def test_a_version_that_comes_in_the_scale_down_delay_of_another_and_one_that_comes_back_in_it(
    place: Place, registry: Registry, model: str
) -> None:
    name = "delayed"
    registry.set_alias(model, "1", name)
    rollout = {"steps": [{"setWeight": 50}, {"pause": {"duration": 5}}], "scaleDownDelaySeconds": 120}
    place.apply(a_model(name, model, alias=name, replicas=2, rollout=rollout))
    place.wait_ready(name)
    first = place.status(name)["stable"]["revision"]
    with load.on(place, name, "digits-onnx", pause=0.02, by_grpc=model) as running:
        registry.set_alias(model, "2", name)
        wait_for_version(place, name, "2")
        second = place.status(name)["stable"]["revision"]
        pods = {revision: names_of(place, name, revision) for revision in (first, second)}

        registry.set_alias(model, "3", name)
        until(90, "the third version has half", lambda: moves(place, name), lambda: place.status(name))
        assert names_of(place, name, first) == pods[first]
        wait_for_version(place, name, "3")

        registry.set_alias(model, "2", name)
        wait_for_version(place, name, "2")
        assert place.status(name)["stable"]["revision"] == second
    assert {revision: names_of(place, name, revision) for revision in (first, second)} == pods
    assert running.failed == 0, running.said
    assert running.answered > 200


def test_a_version_and_a_spec_that_come_at_once_become_one_revision_and_cost_no_request(
    place: Place, registry: Registry, model: str
) -> None:
    name = "changed"
    registry.set_alias(model, "1", name)
    rollout = FAST | {"steps": [{"setWeight": 50}, {"pause": {"duration": 2}}]}
    place.apply(a_model(name, model, alias=name, replicas=2, rollout=rollout))
    place.wait_ready(name)
    with load.on(place, name, "digits-onnx", pause=0.02, by_grpc=model) as running:
        place.change(name, runtime={"env": HELLO})
        registry.set_alias(model, "2", name)
        wait_for_version(place, name, "2")
        place.wait_ready(name)
        until(60, "only stable has pods", lambda: len(place.pods(name)) == 2, lambda: place.find("pods"))
    assert running.failed == 0, running.said
    for pod in place.pods(name):
        [serve] = pod["spec"]["containers"]
        assert HELLO[0] in serve["env"]
    newest, *before = [(item["modelVersion"], item["result"]) for item in place.status(name)["history"]]
    assert newest == ("2", "Promoted")
    assert before in ([("1", "Promoted")], [("1", "Superseded"), ("1", "Promoted")])
