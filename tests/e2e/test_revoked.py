"""The operator's rights are taken away and given back: it says so, stays, and does what was asked meanwhile. Callers notice nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import load
from fixtures_cluster import Api
from installation import OPERATOR, Installation
from place import Object, Place, a_model, until

NAME = "served"
TOLD_SECONDS = 60
RECOVERY_SECONDS = 60
MOST_RESTARTS = 3


@contextmanager
def without_rights(operator: Installation) -> Iterator[None]:
    """All of the ClusterRole's; the Lease has a Role of its own."""
    name = f"{OPERATOR}-{operator.namespace}"
    before = operator.place.get("clusterrole", name)["rules"]
    operator.place.patch("clusterrole", name, {"rules": []})
    try:
        yield
    finally:
        operator.place.patch("clusterrole", name, {"rules": before})


def ready_copies(operator: Installation) -> int:
    return int(operator.place.get("deployment", OPERATOR)["status"].get("readyReplicas", 0))


def restarts(operator: Installation) -> int:
    """Of the program, in a new container or not."""
    statuses = [item for pod in operator.pods() for item in pod["status"].get("containerStatuses", [])]
    return sum(int(item["restartCount"]) for item in statuses) + operator.lost_leases()


def wanted_pods(place: Place) -> int:
    [found] = place.find("deployments", f"moorage.dev/deployment={NAME}")
    return int(found["spec"]["replicas"])


@pytest.mark.parametrize("seconds", [30, pytest.param(120, marks=pytest.mark.long)])
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_rights_that_are_revoked_for_a_while_cost_no_request_and_are_told(
    api: Api, place: Place, operator: Installation, seconds: int, restarted: bool
) -> None:
    place.apply(a_model(NAME, replicas=1))
    place.wait_ready(NAME)
    copies, before = ready_copies(operator), restarts(operator)

    def readiness(pod: Object) -> str:
        return operator.answer(pod["metadata"]["name"], "/readyz")

    with load.on(place, NAME, "digits-onnx", pause=0.05) as running:
        with without_rights(operator):
            begin = time.monotonic()
            if restarted:
                operator.place.kubectl("delete", "pods", "--selector=app.kubernetes.io/component=operator")
                before = 0
            place.change(NAME, replicas=2)
            until(TOLD_SECONDS, "no copy is ready", lambda: ready_copies(operator) == 0)
            told = time.monotonic() - begin
            for pod in operator.pods():
                until(60, "it says why", lambda: "forbidden" in readiness(pod), operator.logs)  # noqa: B023  # called at once
            time.sleep(max(0.0, begin + seconds - time.monotonic()))
            assert wanted_pods(place) == 1
        begin = time.monotonic()
        until(RECOVERY_SECONDS, "what was asked meanwhile is done", lambda: wanted_pods(place) == 2)
        done = time.monotonic() - begin
        until(RECOVERY_SECONDS, "all copies are ready", lambda: ready_copies(operator) == copies)
        place.wait_ready(NAME)

    again = restarts(operator) - before
    print(f"told after {told:.0f} s, done {done:.0f} s after their return, {again} restarts")  # noqa: T201
    assert again <= MOST_RESTARTS
    assert running.failed == 0, running.said
    place.change(NAME, replicas=1)
    until(30, "it has one pod again", lambda: len(place.pods(NAME)) == 1)
