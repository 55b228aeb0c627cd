"""A new version takes over step by step, under load, and nobody goes without an answer; a bad one is put back by itself."""

from __future__ import annotations

from typing import Any

import pytest

import load
from mlflow_in_cluster import Registry
from place import Place, a_model, until

STEPS = [{"setWeight": 20}, {"pause": {"duration": 4}}, {"setWeight": 60}, {"pause": {"duration": 4}}]
FAST: dict[str, Any] = {"steps": STEPS, "scaleDownDelaySeconds": 2, "abortScaleDownDelaySeconds": 2}
COMMAND = "moorage.dev/command"


@pytest.fixture(scope="module")
def model(registry: Registry) -> str:
    """With four versions of the same files; `champion` is the first."""
    for _ in range(4):
        registry.copy("rolled")
    registry.set_alias("rolled", "1")
    return "rolled"


def weight(place: Place, name: str) -> int:
    """What all routers of a rollout hold, in percent; -1 while they do not all hold the same."""
    weights = place.status(name).get("weights", {})
    return int(weights["applied"]) if weights.get("verified") else -1


def command(place: Place, name: str, text: str) -> None:
    place.kubectl("annotate", "--overwrite", "mdep", name, f"{COMMAND}={text}")


def test_versions_take_over_step_by_step_and_no_request_is_lost(place: Place, registry: Registry, model: str) -> None:
    registry.set_alias(model, "1")
    place.apply(a_model("stepwise", model, replicas=2, rollout=FAST))
    place.wait_ready("stepwise")
    seen = []

    with load.on(place, "stepwise", "digits-onnx", pause=0.02) as running:
        for version in ("2", "3", "1"):
            registry.set_alias(model, version)

            def arrived(version: str = version) -> bool:
                seen.append(weight(place, "stepwise"))
                return place.stable_version("stepwise") == version

            until(180, f"version {version} is stable", arrived, lambda: place.status("stepwise"))

    assert running.failed == 0, running.said
    assert running.answered > 500
    assert {20, 60} <= set(seen)
    history = place.status("stepwise")["history"]
    assert [item["result"] for item in history] == ["Promoted"] * 4


def test_a_version_that_does_not_load_is_put_back_and_its_reason_told(
    place: Place, registry: Registry, model: str
) -> None:
    registry.set_alias(model, "1")
    rollout = FAST | {"progressDeadlineSeconds": 20}
    place.apply(a_model("careful", model, rollout=rollout))
    place.wait_ready("careful")
    with load.on(place, "careful", "digits-onnx", pause=0.02) as running:
        place.change("careful", model={"name": "iris"})  # pyfunc, which nobody has allowed
        place.wait_for_reason("careful", "RolledBack", seconds=90)
    assert running.failed == 0, running.said
    status = place.status("careful")
    assert status["history"][0]["result"] == "RolledBack"
    assert place.condition("careful", "Available")["status"] == "True"


def test_a_pause_waits_for_a_command_and_abort_goes_back(place: Place, registry: Registry, model: str) -> None:
    registry.set_alias(model, "1")
    rollout = FAST | {"steps": [{"setWeight": 50}, {"pause": {}}]}
    place.apply(a_model("asked", model, rollout=rollout))
    place.wait_ready("asked")
    with load.on(place, "asked", "digits-onnx", pause=0.02) as running:
        registry.set_alias(model, "2")
        place.wait_for_reason("asked", "Paused")
        canary = place.status("asked")["canary"]["revision"]
        command(place, "asked", f"abort@{canary}")
        place.wait_for_reason("asked", "RolledBack")
        until(60, "its pods have ended", lambda: not place.pods("asked", canary))
        command(place, "asked", f"retry@{canary}")
        place.wait_for_reason("asked", "Paused")
        command(place, "asked", f"promote@{canary}/1")
        until(60, "it is stable", lambda: place.stable_version("asked") == "2")
    assert running.failed == 0, running.said
