"""What can happen to a version that has half of the requests, and stable's pods meanwhile: they carry their share, come what may."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import callers
import load
import watching
from mlflow_in_cluster import Registry
from moorage_operator.core.reasons import Reason
from place import Object, Place, a_model, until
from wishes import Wishes

HALF = [{"setWeight": 50}, {"pause": {}}]
HALFWAY = {"desired": 50, "applied": 50, "verified": True}
ERRORS = {"name": "errors", "errorRate": {}}
QUICK = {"intervalSeconds": 5, "initialDelaySeconds": 1, "minRequests": 30, "guards": [ERRORS]}
ROLLOUT: dict[str, Any] = {
    "steps": HALF,
    "analysis": QUICK,
    "scaleDownDelaySeconds": 60,
    "abortScaleDownDelaySeconds": 60,
}
"""Who leaves keeps its pods beyond the test: that they end would be no lack of capacity."""
REPLICAS = 2
WEIGHT, TOLERANCE = 0.50, 0.02
COUNTS = "{.metadata.name},{.spec.replicas},{.status.readyReplicas}"
STATE = "from urllib import request; print(request.urlopen('http://127.0.0.1:8404/state').read().decode())"


def has_half(place: Place, name: str, version: str) -> bool:
    status = place.status(name)
    return bool(status.get("weights") == HALFWAY and status["canary"]["modelVersion"] == version)


def wait_for_half(place: Place, name: str, version: str) -> None:
    until(180, f"version {version} has half", lambda: has_half(place, name, version), lambda: place.status(name))


def outcomes(place: Place, name: str) -> list[tuple[str, str]]:
    """The newest first."""
    return [(item["modelVersion"], item["result"]) for item in place.status(name).get("history", [])]


def counts(place: Place, name: str) -> Any:
    """Of all Deployments of a model: what is wanted and what is ready, as it changes."""
    return watching.values(place, "deployments", f"--selector=moorage.dev/deployment={name}", jsonpath=COUNTS)


def fewest(seen: list[str], deployment: str) -> tuple[int, int]:
    """Pods that were wanted, and that were ready."""
    found = [line.split(",")[1:] for line in seen if line.startswith(f"{deployment},")]
    return min(int(wanted) for wanted, _ in found), min(int(ready or 0) for _, ready in found)


def counted(place: Place, name: str) -> Counter[str]:
    """What all routers have counted of stable's requests."""
    found: Counter[str] = Counter()
    for pod in place.find("pods", "app.kubernetes.io/component=router"):
        text = place.kubectl("exec", pod["metadata"]["name"], "--container=agent", "--", "python", "-c", STATE)
        found.update(json.loads(text)["models"][name]["counters"]["stable"])
    return found


def ends(pods: list[Object]) -> set[str]:
    """Why the serving containers of these pods ended before."""
    statuses = [status for pod in pods for status in pod["status"]["containerStatuses"]]
    found = [
        status[state]["terminated"]
        for status in statuses
        for state in ("state", "lastState")
        if "terminated" in status[state]
    ]
    return {str(item["reason"]) for item in found}


def test_a_version_that_runs_out_of_memory_is_put_back_and_stable_answers_all_of_its_own(
    place: Place, registry: Registry, tmp_path: Path
) -> None:
    name = "greedy"
    callers.published(registry, name, "equal", tmp_path / "equal")
    place.apply(a_model(name, name, replicas=REPLICAS, runtime={"allowPickle": True}, rollout=ROLLOUT))
    place.wait_ready(name)
    stable = place.status(name)["stable"]["revision"]

    version = callers.published(registry, name, "greedy", tmp_path / "greedy")
    wait_for_half(place, name, version)
    canary = place.status(name)["canary"]["revision"]
    with counts(place, name) as pods, callers.on(place, name, "http", "grpc") as seen:
        until(
            120, "it is put back", lambda: (version, "RolledBack") in outcomes(place, name), lambda: place.status(name)
        )

    [rejected] = place.status(name)["rejected"]
    assert rejected["reason"] in {Reason.CANARY_LOST, Reason.CANARY_CRASHES, Reason.ANALYSIS_FAILED}
    assert "needed more memory than its limit" in rejected["message"] or rejected["message"].startswith("errors: ")
    assert "OOMKilled" in ends(place.pods(name, canary))
    failed = sum(seen[what] for what in callers.errors_of(seen))
    print(f"{seen.total()} asked, {failed} failed: {dict(seen)}; {rejected['message']}")  # noqa: T201
    assert 0 < failed <= (WEIGHT + TOLERANCE) * seen.total(), seen
    of_stable = counted(place, name)
    assert of_stable["requests"] >= seen[f"{stable} right"] > 0
    assert of_stable["bad"] == 0, of_stable
    assert not ends(place.pods(name, stable))
    assert fewest(pods, stable) == (REPLICAS, REPLICAS)


@pytest.fixture(scope="module")
def model(registry: Registry) -> str:
    """With three versions of the same files; `champion` is the first."""
    for _ in range(3):
        registry.copy("replaced")
    registry.set_alias("replaced", "1")
    return "replaced"


def test_who_is_replaced_at_half_by_a_third_version_and_that_by_another_spec_costs_no_request(
    place: Place, registry: Registry, model: str
) -> None:
    place.apply(a_model(model, model, replicas=REPLICAS, rollout=ROLLOUT))
    place.wait_ready(model)
    stable = place.status(model)["stable"]["revision"]
    with counts(place, model) as pods, load.on(place, model, "digits-onnx", pause=0.02, by_grpc=model) as running:
        registry.set_alias(model, "2")
        wait_for_half(place, model, "2")
        registry.set_alias(model, "3")
        wait_for_half(place, model, "3")
        before = place.status(model)["canary"]["revision"]
        place.change(model, runtime={"env": [{"name": "GREETING", "value": "hello"}]})
        until(120, "the first one of version 3 has gone", lambda: outcomes(place, model)[0] == ("3", "Superseded"))
        wait_for_half(place, model, "3")
        last = place.status(model)["canary"]["revision"]
        place.command(model, f"promoteFull@{last}")
        place.wait_ready(model)

    print(running.said)  # noqa: T201
    assert running.failed == 0, running.said
    assert last != before
    assert outcomes(place, model) == [("3", "Promoted"), ("3", "Superseded"), ("2", "Superseded"), ("1", "Promoted")]
    assert place.status(model)["stable"]["revision"] == last
    assert fewest(pods, stable) == (REPLICAS, REPLICAS)


def ready(place: Place, name: str) -> tuple[int, int]:
    """Pods of stable and of the canary."""
    status = place.status(name)
    return status["stable"].get("readyReplicas", 0), status["canary"].get("readyReplicas", 0)


def scale(place: Place, name: str, replicas: int) -> None:
    place.kubectl("scale", "mdep", name, f"--replicas={replicas}")


def test_who_scales_both_by_hand_at_half_is_followed_at_once_and_costs_no_request(
    place: Place, registry: Registry, model: str
) -> None:
    name = "by-hand"
    registry.set_alias(model, "1", name)
    place.apply(a_model(name, model, alias=name, replicas=REPLICAS, rollout=ROLLOUT))
    place.wait_ready(name)
    stable = place.status(name)["stable"]["revision"]
    with counts(place, name) as pods, load.on(place, name, "digits-onnx", pause=0.02, by_grpc=model) as running:
        registry.set_alias(model, "2", name)
        wait_for_half(place, name, "2")
        for replicas, wanted in ((5, (5, 3)), (REPLICAS, (REPLICAS, 2))):
            scale(place, name, replicas)
            until(90, f"it has {wanted} pods", lambda: ready(place, name) == wanted, lambda: place.status(name))  # noqa: B023  # called at once
            assert has_half(place, name, "2")
        scale(place, name, 3)
        canary = place.status(name)["canary"]["revision"]
        place.command(name, f"promoteFull@{canary}")
        place.wait_ready(name)
    assert running.failed == 0, running.said
    assert fewest(pods, stable) == (REPLICAS, REPLICAS)
    assert (place.get("deployment", canary)["spec"]["replicas"], len(place.pods(name, canary))) == (3, 3)


def test_autoscalers_that_act_at_half_take_nothing_back_and_cost_no_request(
    place: Place, registry: Registry, model: str, wished: Wishes
) -> None:
    name, most = "by-itself", 4
    registry.set_alias(model, "1", name)
    scaling = {
        "minReplicas": REPLICAS,
        "maxReplicas": most,
        "metrics": [wished.metric],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    }
    place.apply(a_model(name, model, alias=name, autoscaling=scaling, rollout=ROLLOUT))
    place.wait_ready(name)
    stable = place.status(name)["stable"]["revision"]

    def saw(revision: str, metric: str) -> bool:
        [found] = place.get("hpa", revision)["status"]["currentMetrics"]
        return bool(found["external"]["current"]["averageValue"] == metric)

    with counts(place, name) as pods, load.on(place, name, "digits-onnx", pause=0.02, by_grpc=model) as running:
        registry.set_alias(model, "2", name)
        wait_for_half(place, name, "2")
        canary = place.status(name)["canary"]["revision"]
        wished.say(most)
        until(90, "both have all", lambda: ready(place, name) == (most, most), lambda: place.find("hpa"))
        wished.say(1)
        for revision in (stable, canary):
            until(60, "its autoscaler wants one", lambda: saw(revision, "250m"), lambda: place.find("hpa"))  # noqa: B023  # the same
        assert ready(place, name) == (most, most)
        assert has_half(place, name, "2")
        place.command(name, f"promoteFull@{canary}")
        place.wait_ready(name)
    assert running.failed == 0, running.said
    assert fewest(pods, stable) == (REPLICAS, REPLICAS)
    for revision in (stable, canary):
        wanted = [int(line.split(",")[1]) for line in pods if line.startswith(f"{revision},")]
        assert wanted == sorted(wanted), "somebody has taken a pod back"
        assert wanted[-1] == most
