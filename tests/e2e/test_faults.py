"""What breaks while a version takes over: operator, routers, pods, API server, kubelet, and the way between them. Callers notice nothing.

Times are short here; `make e2e-long` has the full ones.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import load
from fixtures_cluster import Api
from installation import Installation
from mlflow_in_cluster import Registry
from place import Object, Place, a_model, until

NAME, MODEL = "steady", "digits-steady"
STEPS = [{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}, {"pause": {}}]
ROLLOUT: dict[str, Any] = {"steps": STEPS, "scaleDownDelaySeconds": 2, "abortScaleDownDelaySeconds": 2}
IN_FLIGHT = 6
"""Callers of the load: so many requests may be on their way in one place."""


@pytest.fixture(scope="module")
def steady(place: Place, registry: Registry) -> str:
    """Two versions of the same files; the first answers, with two pods."""
    for _ in range(2):
        registry.copy(MODEL)
    registry.set_alias(MODEL, "1")
    place.apply(a_model(NAME, MODEL, replicas=2, rollout=ROLLOUT))
    place.wait_ready(NAME)
    return NAME


@pytest.fixture
def halfway(place: Place, registry: Registry, steady: str) -> Iterator[str]:
    """Another version has 20 %, and waits; afterwards it is promoted and nothing is on its way any more. Gives its revision."""
    version = "2" if place.stable_version(steady) == "1" else "1"
    registry.set_alias(MODEL, version)
    wait_for_weight(place, 20)
    yield str(place.status(steady)["canary"]["revision"])
    if "canary" in place.status(steady):
        command(place, f"promoteFull@{place.status(steady)['canary']['revision']}")
    until(90, "it is promoted", lambda: place.stable_version(steady) == version, lambda: place.status(steady))
    until(60, "the old pods have ended", lambda: "leaving" not in place.status(steady))


def wait_for_weight(place: Place, percent: int) -> None:
    def held() -> bool:
        status = place.status(NAME)
        return bool(status.get("weights") == {"desired": percent, "applied": percent, "verified": True})

    until(120, f"the routers hold {percent} %", held, lambda: place.status(NAME))
    place.wait_for_reason(NAME, "Paused")


def command(place: Place, text: str) -> None:
    place.kubectl("annotate", "--overwrite", "mdep", NAME, f"moorage.dev/command={text}")


def kill(place: Place, pod: str) -> None:
    place.kubectl("delete", "pod", pod, "--force", "--grace-period=0")


def test_an_operator_that_is_killed_at_each_step_loses_no_request(
    place: Place, operator: Installation, steady: str, halfway: str
) -> None:
    with load.on(place, steady, "digits-onnx", pause=0.02, by_grpc=MODEL) as running:
        for step in (1, 3):
            kill(operator.place, operator.leader())
            command(place, f"promote@{halfway}/{step}")
            if step == 1:
                wait_for_weight(place, 60)
        until(90, "it is promoted", lambda: place.status(steady)["stable"]["revision"] == halfway)
    assert running.failed == 0, running.said


@pytest.mark.parametrize(("what", "seconds"), [("kube-apiserver", 20), ("kubelet", 15), ("pods-to-api", 30)])
def test_what_stands_still_for_a_while_costs_no_request(
    api: Api, place: Place, steady: str, halfway: str, what: str, seconds: int
) -> None:
    disturbed(api, place, steady, what, seconds)


@pytest.mark.long
@pytest.mark.parametrize(("what", "seconds"), [("kube-apiserver", 40), ("kubelet", 40), ("pods-to-api", 60)])
def test_what_stands_still_for_long_costs_no_request(
    api: Api, place: Place, steady: str, halfway: str, what: str, seconds: int
) -> None:
    disturbed(api, place, steady, what, seconds)


def disturbed(api: Api, place: Place, name: str, what: str, seconds: int) -> None:
    if "a cluster of yours" in api.hack("cluster", "status"):
        pytest.skip("only a cluster that hack/cluster made can be disturbed")
    before = restarts(place)
    with load.on(place, name, "digits-onnx", pause=0.02, by_grpc=MODEL) as running:
        api.hack("cluster", "disturb", what, f"--seconds={seconds}")
        time.sleep(3)
        until(60, "the API server answers", lambda: place.status(name).get("weights"))
        assert place.status(name)["weights"]["desired"] == 20
    assert running.failed == 0, running.said
    assert running.answered > 10 * seconds
    assert restarts(place) == before, "a pod of a model or a router was restarted"


def restarts(place: Place) -> dict[str, int]:
    found = place.find("pods", "app.kubernetes.io/managed-by=moorage")
    return {
        pod["metadata"]["name"]: sum(item["restartCount"] for item in pod["status"].get("containerStatuses", []))
        for pod in found
        if "deletionTimestamp" not in pod["metadata"]
    }


def routers(place: Place) -> list[str]:
    return [pod["metadata"]["name"] for pod in place.find("pods", "app.kubernetes.io/component=router")]


KILLED: dict[str, Callable[[Place, str], str]] = {
    "a router": lambda place, canary: routers(place)[0],
    "a pod of the canary": lambda place, canary: str(place.pods(NAME, canary)[0]["metadata"]["name"]),
    "a pod of stable": lambda place, canary: str(
        place.pods(NAME, place.status(NAME)["stable"]["revision"])[0]["metadata"]["name"]
    ),
}


@pytest.mark.parametrize("which", KILLED)
def test_a_pod_that_is_killed_costs_what_was_in_flight_there_and_nothing_later(
    place: Place, steady: str, halfway: str, which: str
) -> None:
    with load.on(place, steady, "digits-onnx", pause=0.02, by_grpc=MODEL) as running:
        kill(place, KILLED[which](place, halfway))
        time.sleep(15)
    assert running.failed <= IN_FLIGHT, running.said
    assert later_failures(running.said) == 0, running.said


def later_failures(said: str) -> int:
    """Failures more than two seconds after the first."""
    moments = [float(found) for found in re.findall(r"^([0-9.]+) failed", said, re.MULTILINE)]
    return sum(moment > moments[0] + 2 for moment in moments)


def test_routers_that_are_all_replaced_lose_no_request(place: Place, steady: str, halfway: str) -> None:
    before = set(routers(place))
    with load.on(place, steady, "digits-onnx", pause=0.02, by_grpc=MODEL) as running:
        place.kubectl("rollout", "restart", "deployment/moorage-router")
        place.wait_rolled_out("moorage-router", seconds=180)
        until(150, "the old routers are gone", lambda: not before & set(routers(place)))
    assert running.failed == 0, running.said


def test_models_beside_it_come_change_and_go_unnoticed(
    place: Place, registry: Registry, steady: str, halfway: str
) -> None:
    beside = [a_model(f"beside-{number}", MODEL, version=str(number)) for number in (1, 2)]
    with load.on(place, steady, "digits-onnx", pause=0.02, by_grpc=MODEL) as running:
        place.apply(*beside)
        place.wait_ready("beside-1", "beside-2")
        place.change("beside-1", model={"version": "2"})
        until(90, "it has changed", lambda: place.stable_version("beside-1") == "2")
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: place.delete("mdep", name), ("beside-1", "beside-2")))
        until(60, "their pods are gone", lambda: not place.pods("beside-1") and not place.pods("beside-2"))
        time.sleep(3)
    assert running.failed == 0, running.said
    status: Object = place.status(steady)
    assert status["weights"] == {"desired": 20, "applied": 20, "verified": True}
