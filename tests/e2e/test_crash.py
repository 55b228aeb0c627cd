"""`kill -9` of the operator between any two of its writes: nothing is lost, nothing is made twice, nobody goes without an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

import load
import watching
from installation import Installation
from mlflow_in_cluster import Registry
from place import Object, Place, a_model, key_of, until

SCRIPT = Path(__file__).parents[1] / "one_write_a_life.py"
STEPS = [{"setWeight": 20}, {"pause": {"duration": 1}}, {"setWeight": 60}, {"pause": {"duration": 1}}]
SCALED = {"replicas": None, "autoscaling": {"minReplicas": 2, "maxReplicas": 2}}


def lives(operator: Installation, when: str = "after") -> list[str]:
    """What each life that ended then did last, so far."""
    text = operator.place.kubectl("logs", "deployment/moorage-operator", "--tail=-1")
    said = f"killed {when}: "
    return [line.removeprefix(said) for line in text.splitlines() if line.startswith(said)]


def shape(place: Place, name: str) -> list[tuple[str, str]]:
    """Kind and role of every child; names hold hashes of the ModelDeployment's uid."""
    roles = {place.status(name)["stable"]["revision"]: "stable"}
    found = []
    for item in place.children(name):
        kind, child = key_of(item)
        found.append((kind, "address" if child == name else roles.get(child, "old")))
    return sorted(found)


def versions(place: Place, name: str) -> Object:
    return {
        item["metadata"]["name"]: item["spec"]["replicas"]
        for item in place.find("deployments", f"moorage.dev/deployment={name}")
    }


def test_an_operator_that_dies_after_each_write_gets_where_one_that_lives_gets(
    place: Place, operator: Installation, registry: Registry
) -> None:
    for _ in range(2):
        registry.copy("mortal")
    for alias in ("alive", "mortal"):
        registry.set_alias("mortal", "1", alias)
    rollout = {"scaleDownDelaySeconds": 1}
    place.apply(a_model("alive", "mortal", alias="alive", rollout=rollout, replicas=2))
    place.wait_ready("alive")
    shapes = [shape(place, "alive")]
    registry.set_alias("mortal", "2", "alive")
    until(90, "version 2", lambda: place.status("alive")["stable"]["modelVersion"] == "2")
    place.change("alive", **SCALED)
    until(60, "the old version has ended", lambda: sorted(versions(place, "alive").values()) == [0, 2])
    until(60, "it has an autoscaler", lambda: ("HorizontalPodAutoscaler", "stable") in shape(place, "alive"))
    shapes.append(shape(place, "alive"))
    place.change("alive", suspend=True)

    with operator.running("python", "/script/one_write_a_life.py", script=SCRIPT, copies=1):
        place.apply(a_model("mortal", "mortal", alias="mortal", rollout=rollout, replicas=2))
        place.wait_ready("mortal", seconds=300)
        until(60, "all children are there", lambda: shape(place, "mortal") == shapes[0], lambda: shape(place, "mortal"))

        with load.on(place, "mortal", "digits-onnx") as running:
            registry.set_alias("mortal", "2", "mortal")
            until(
                240,
                "version 2",
                lambda: place.status("mortal")["stable"]["modelVersion"] == "2",
                lambda: lives(operator),
            )
            place.change("mortal", **SCALED)
            until(
                240, "the same children as the other", lambda: shape(place, "mortal") == shapes[1],
                lambda: [shape(place, "mortal"), shapes[1], lives(operator)],
            )  # fmt: skip
            until(60, "the old version has ended", lambda: sorted(versions(place, "mortal").values()) == [0, 2])
        done = lives(operator)

    assert running.failed == 0, running.said
    assert len(done) > 25, done
    kinds = {
        "Deployment",
        "Service",
        "ControllerRevision",
        "ConfigMap",
        "HorizontalPodAutoscaler",
        "Event",
        "ModelDeployment",
    }
    assert not [kind for kind in kinds if not any(f" {kind} " in words for words in done)], done
    place.wait_ready("mortal")


def test_a_leader_that_is_killed_at_each_step_loses_no_request_and_no_weight(
    place: Place, operator: Installation, registry: Registry
) -> None:
    for _ in range(2):
        registry.copy("stepping")
    registry.set_alias("stepping", "1")
    rollout = {"steps": STEPS, "scaleDownDelaySeconds": 1}
    place.apply(a_model("stepping", "stepping", rollout=rollout, replicas=2))
    place.wait_ready("stepping")

    with operator.running("python", "/script/one_write_a_life.py", "stepping", script=SCRIPT, copies=1):
        with (
            load.on(place, "stepping", "digits-onnx", pause=0.02, by_grpc="stepping") as running,
            watching.weights(place, "stepping") as seen,
        ):
            registry.set_alias("stepping", "2")
            until(
                200, "version 2", lambda: place.stable_version("stepping") == "2",
                lambda: [lives(operator), place.status("stepping")],
            )  # fmt: skip
            until(60, "the old version has ended", lambda: sorted(versions(place, "stepping").values()) == [0, 2])
        done = lives(operator)

    assert running.failed == 0, running.said
    assert done == [*(f"step {number}" for number in range(len(STEPS) + 1)), "version 2"]
    for kind in ("desired", "applied"):
        weights = [weight for of, weight in seen if of == kind]
        assert weights == sorted(weights), seen
        assert {20, 60} <= set(weights), seen
    place.wait_ready("stepping")


@pytest.mark.long
@pytest.mark.timeout(5400, func_only=True)
def test_an_operator_that_dies_three_hundred_times_loses_nothing(
    place: Place, operator: Installation, registry: Registry
) -> None:
    """A model is made, rolled out by steps, given up half-way, and deleted, again and again."""
    for _ in range(3):
        registry.copy("dying")
    rollout = {"steps": STEPS, "scaleDownDelaySeconds": 1, "abortScaleDownDelaySeconds": 1}
    with operator.running("python", "/script/one_write_a_life.py", "anywhere", script=SCRIPT, copies=1):
        while sum(map(len, deaths(operator).values())) < 300:
            registry.set_alias("dying", "1")
            place.apply(a_model("dying", "dying", rollout=rollout, replicas=2))
            place.wait_ready("dying")
            with load.on(place, "dying", "digits-onnx", pause=0.05, by_grpc="dying") as running:
                registry.set_alias("dying", "2")
                until(300, "version 2", lambda: place.stable_version("dying") == "2", lambda: place.status("dying"))
                registry.set_alias("dying", "3")
                until(120, "version 3 is on its way", lambda: "canary" in place.status("dying"))
                revision = place.status("dying")["canary"]["revision"]
                place.command("dying", f"abort@{revision}")
                place.wait_for_reason("dying", "RolledBack")
                until(120, "only version 2 has pods", lambda: sorted(versions(place, "dying").values()) == [0, 0, 2])
            assert running.failed == 0, running.said
            assert shape(place, "dying").count(("Service", "address")) == 1
            place.delete("mdep", "dying")
            until(60, "nothing is left", lambda: not place.children("dying") and not place.pods("dying"))
        assert all(deaths(operator).values())


def deaths(operator: Installation) -> dict[str, list[str]]:
    return {when: lives(operator, when) for when in ("before", "within", "after")}
