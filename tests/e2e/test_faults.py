"""What breaks while a version takes over: routers, pods, API server, kubelet, registry, and the way between them. Callers notice nothing.

Times are short here; `make e2e-long` has the full ones. That the operator is killed is in test_crash.py.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import killing
import load
from fixtures_cluster import Api
from installation import Installation
from mlflow_in_cluster import Registry
from place import Object, Place, a_model, until

NAME, MODEL = "steady", "digits-steady"
STEPS = [{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}, {"pause": {}}]
ROLLOUT: dict[str, Any] = {"steps": STEPS, "scaleDownDelaySeconds": 2, "abortScaleDownDelaySeconds": 2}
ROUTERS = "app.kubernetes.io/component=router"
WEIGHTS = range(10, 100, 10)
QUICK_STEPS = [step for weight in WEIGHTS for step in ({"setWeight": weight}, {"pause": {"duration": 2}})]
IN_FLIGHT = 6
"""Callers of the load: so many requests may be on their way in one place."""
RECOVERY_SECONDS = 30


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
def halfway(place: Place, registry: Registry, steady: str) -> str:
    """Another version has 20 %, and waits: that of the test before, unless it was promoted. Gives its revision."""
    if "canary" not in place.status(steady):
        until(60, "the old pods have ended", lambda: "leaving" not in place.status(steady))
        registry.set_alias(MODEL, "2" if place.stable_version(steady) == "1" else "1")
    wait_for_weight(place, 20)
    return str(place.status(steady)["canary"]["revision"])


def wait_for_weight(place: Place, percent: int) -> None:
    def held() -> bool:
        status = place.status(NAME)
        return bool(status.get("weights") == {"desired": percent, "applied": percent, "verified": True})

    until(120, f"the routers hold {percent} %", held, lambda: place.status(NAME))
    place.wait_for_reason(NAME, "Paused")


@pytest.mark.parametrize(("what", "seconds"), [("kube-apiserver", 20), ("kubelet", 15), ("pods-to-api", 30)])
def test_what_stands_still_for_a_while_costs_no_request(
    api: Api, place: Place, steady: str, halfway: str, what: str, seconds: int
) -> None:
    disturbed(api, place, steady, what, seconds)


A_MINUTE = [("kube-apiserver", 40), ("kubelet", 40), ("containerd", 40), ("pods-to-api", 60)]
TEN_MINUTES = [("pods-to-api", 600)]
"""More than a leader's patience, and than the kubelet's first pauses between restarts. Not the API server: when it is back after more
than 50 s, the node controller may call all pods of all nodes unready for some seconds, and no Service of the cluster has endpoints."""


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("what", "seconds"), A_MINUTE + TEN_MINUTES)
def test_what_stands_still_for_long_costs_no_request(
    api: Api, place: Place, steady: str, halfway: str, what: str, seconds: int
) -> None:
    disturbed(api, place, steady, what, seconds)


def disturbed(api: Api, place: Place, name: str, what: str, seconds: int) -> None:
    if api.is_users_own:
        pytest.skip("only a cluster that hack/cluster made can be disturbed")
    before, stable = restarts(place), place.status(name)["stable"]["revision"]
    with load.on(place, name, "digits-onnx", pause=0.02, by_grpc=MODEL, most_seconds=seconds + 300) as running:
        api.hack("cluster", "disturb", what, f"--seconds={seconds}")
        place.change(name, replicas=3)
        until(RECOVERY_SECONDS, "what is asked for now is done", lambda: pods_wanted(place, stable) == 3)
        assert place.status(name)["weights"]["desired"] == 20
        until(60, "the third pod is ready", lambda: place.status(name)["stable"]["readyReplicas"] == 3)
        assert before.items() <= restarts(place).items(), "a pod of a model or a router was restarted"
        place.change(name, replicas=2)
        until(RECOVERY_SECONDS, "it has its two pods again", lambda: len(place.pods(name, stable)) == 2)
    assert running.failed == 0, running.said
    assert running.answered > 10 * seconds


@pytest.fixture
def moving(place: Place, registry: Registry, steady: str) -> Iterator[str]:
    """With many weights that last two seconds each; gone after the test."""
    name = "moving"
    registry.set_alias(MODEL, "1", name)
    place.apply(a_model(name, MODEL, alias=name, replicas=2, rollout=ROLLOUT | {"steps": QUICK_STEPS}))
    place.wait_ready(name)
    yield name
    place.delete("mdep", name)
    until(90, "its pods have ended", lambda: not place.find("pods", f"moorage.dev/deployment={name}"))


def test_what_stands_still_while_weight_moves_costs_no_request_and_it_goes_on_afterwards(
    api: Api, place: Place, registry: Registry, moving: str
) -> None:
    seen = moved_and_disturbed(api, place, registry, moving, "pods-to-api", 20)
    assert 0 < seen[0] < max(WEIGHTS), "nobody has moved it meanwhile"


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("what", "seconds"), A_MINUTE)
def test_what_stands_still_for_long_while_weight_moves_costs_no_request(
    api: Api, place: Place, registry: Registry, moving: str, what: str, seconds: int
) -> None:
    for _ in range(3):
        moved_and_disturbed(api, place, registry, moving, what, seconds)


def moved_and_disturbed(api: Api, place: Place, registry: Registry, name: str, what: str, seconds: int) -> list[int]:
    """As soon as another version has some of the requests; returns the weights that were seen from the end of that on."""
    if api.is_users_own:
        pytest.skip("only a cluster that hack/cluster made can be disturbed")
    version = "2" if place.stable_version(name) == "1" else "1"
    seen: list[int] = []

    def arrived() -> bool:
        applied = place.status(name).get("weights", {}).get("applied")
        if applied is not None:  # nobody knows, while routers differ or are not heard
            seen.append(applied)
        return place.stable_version(name) == version

    with load.on(place, name, "digits-onnx", pause=0.02, by_grpc=MODEL, most_seconds=seconds + 300) as running:
        registry.set_alias(MODEL, version, name)
        until(120, "its weight moves", lambda: weight_of(place, name) > 0, lambda: place.status(name), every=0.1)
        api.hack("cluster", "disturb", what, f"--seconds={seconds}")
        until(RECOVERY_SECONDS + 60, "it is stable", arrived, lambda: place.status(name))
        place.wait_ready(name)
    print(f"weights since then: {seen}")  # noqa: T201
    assert running.failed == 0, running.said
    assert running.answered > 10 * seconds
    assert seen == sorted(seen), "it has gone back"
    return seen


def weight_of(place: Place, name: str) -> int:
    """As all routers have said that they hold it; 0 without a canary."""
    return int(place.status(name).get("weights", {}).get("applied", 0))


def pods_wanted(place: Place, revision: str) -> int:
    return int(place.get("deployment", revision)["spec"]["replicas"])


def restarts(place: Place) -> dict[str, int]:
    found = place.find("pods", "app.kubernetes.io/managed-by=moorage")
    return {
        pod["metadata"]["name"]: sum(item["restartCount"] for item in pod["status"].get("containerStatuses", []))
        for pod in found
        if "deletionTimestamp" not in pod["metadata"]
    }


def routers(place: Place) -> list[Object]:
    """Those that have not been told to end."""
    found = place.find("pods", ROUTERS)
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def name_of(pod: Object) -> str:
    return str(pod["metadata"]["name"])


def all_are_ready(place: Place) -> bool:
    """Of the pods of models and routers."""
    pods = place.find("pods", "app.kubernetes.io/managed-by=moorage")
    return all(item["ready"] for pod in pods for item in pod["status"].get("containerStatuses", [{"ready": False}]))


def test_what_is_killed_costs_what_was_in_flight_there_and_nothing_later(
    place: Place, operator: Installation, steady: str, halfway: str
) -> None:
    stable = place.status(steady)["stable"]["revision"]
    first, second = routers(place)
    kills: dict[str, Callable[[], float]] = {
        "HAProxy": lambda: killing.haproxy(place, first),
        "a router": lambda: killing.containers(operator.place, second),
        "a pod of stable": lambda: killing.containers(operator.place, place.pods(NAME, stable)[0]),
        "a pod of the canary": lambda: killing.containers(operator.place, place.pods(NAME, halfway)[0]),
    }
    moments: dict[str, float] = {}
    with load.on(place, steady, "digits-onnx", pause=0.02, by_grpc=MODEL) as running:
        for what, kill in kills.items():
            before = restarts(place)
            moments[what] = kill()
            until(30, f"{what} is started anew", lambda: restarts(place) != before)  # noqa: B023  # called at once
            until(30, f"{what} is ready", lambda: all_are_ready(place))
            time.sleep(5)
        wait_for_weight(place, 20)

    lost = failures_after(moments, running.said)
    print(f"failures, in seconds after each kill: {lost}")  # noqa: T201
    for found in lost.values():
        # Until the Service leaves the pod out, it refuses connections as well: with them nothing was in flight.
        assert len([text for _, text in found if "onnection refused" not in text]) <= IN_FLIGHT, lost
        assert all(-0.1 < seconds < 2 for seconds, _ in found), lost


def failures_after(moments: dict[str, float], said: str) -> dict[str, list[tuple[float, str]]]:
    """By what was killed last before each: how many seconds later. Both clocks are those of nodes."""
    found: dict[str, list[tuple[float, str]]] = {what: [] for what in moments}
    for seconds, text in re.findall(r"^([0-9.]+) failed: (.*)", said, re.MULTILINE):
        before = [what for what, moment in moments.items() if moment < float(seconds) + 0.1]
        what = before[-1] if before else next(iter(moments))
        found[what].append((round(float(seconds) - moments[what], 2), text))
    return found


def test_pods_that_are_evicted_cost_no_request_and_leave_one_by_one(place: Place, steady: str, halfway: str) -> None:
    stable = place.status(steady)["stable"]["revision"]
    pairs = [place.pods(steady, stable), place.pods(steady, halfway), routers(place)]
    with load.on(place, steady, "digits-onnx", pause=0.02, by_grpc=MODEL) as running:
        for first, second in pairs:
            assert evict(place, name_of(first)) == ""
            assert "disruption budget" in evict(place, name_of(second))
        gone, kept = ({name_of(pair[number]) for pair in pairs} for number in (0, 1))

        def are_replaced() -> bool:
            names = restarts(place).keys()
            return len(names) == 2 * len(pairs) and not gone & names and all_are_ready(place)

        until(90, "there is another pod for each", are_replaced, lambda: place.find("pods"))
        assert kept <= restarts(place).keys()
        wait_for_weight(place, 20)
    assert running.failed == 0, running.said


def evict(place: Place, pod: str) -> str:
    """As `kubectl drain` does; returns why not."""
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": place.name},
    }
    path = f"/api/v1/namespaces/{place.name}/pods/{pod}/eviction"
    return place.api.run("kubectl", "create", "--raw", path, "--filename=-", stdin=json.dumps(eviction)).stderr


def test_routers_that_are_all_replaced_lose_no_request(place: Place, steady: str, halfway: str) -> None:
    before = set(map(name_of, routers(place)))
    with load.on(place, steady, "digits-onnx", pause=0.02, by_grpc=MODEL) as running:
        place.kubectl("rollout", "restart", "deployment/moorage-router")
        place.wait_rolled_out("moorage-router", seconds=180)
        until(
            150, "the old routers are gone", lambda: not before & {name_of(pod) for pod in place.find("pods", ROUTERS)}
        )
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


def test_a_registry_that_goes_away_holds_up_no_rollout_that_has_begun(
    place: Place, registry: Registry, steady: str, halfway: str
) -> None:
    with load.on(place, steady, "digits-onnx", pause=0.02, by_grpc=MODEL) as running:
        registry.stop()
        try:
            place.command(NAME, f"promote@{halfway}/1")
            wait_for_weight(place, 60)
            place.wait_for_reason(steady, "RegistryUnreachable", kind="ModelResolved", seconds=30)
            place.command(NAME, f"promote@{halfway}/3")
            until(60, "it is stable", lambda: place.status(steady)["stable"]["revision"] == halfway)
            until(60, "the old pods have ended", lambda: "leaving" not in place.status(steady))
        finally:
            registry.start()
    assert running.failed == 0, running.said
    assert place.status(steady)["history"][0]["result"] == "Promoted"
