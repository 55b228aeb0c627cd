"""One of two copies works. When it dies, freezes or is told to end, the other takes over; without any, models serve on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import audit
from fixtures_cluster import Api
from installation import LEADS_NO_MORE, OPERATOR, RESYNC_SECONDS, SETTLED_SECONDS, Installation
from mlflow_in_cluster import Registry
from place import Place, a_model, a_namespace, ending_namespaces, until

SCRIPT = Path(__file__).parents[1] / "as_child.py"
TAKEOVER_SECONDS = 20


@pytest.fixture(scope="module")
def killable(operator: Installation) -> Iterator[Installation]:
    """With two copies, each of which a signal can reach."""
    with operator.running("python", "/script/as_child.py", script=SCRIPT, copies=2):
        yield operator


@pytest.fixture
def two(killable: Installation) -> Installation:
    """Both running, one of them leading."""

    def both_run() -> bool:
        statuses = [item for pod in killable.pods() for item in pod["status"].get("containerStatuses", [])]
        return len(statuses) == 2 and all(item["ready"] for item in statuses)

    until(60, "two copies run", both_run)
    until(30, "one leads", lambda: killable.leader() in {pod["metadata"]["name"] for pod in killable.pods()})
    return killable


def send(operator: Installation, pod: str, signal: str) -> None:
    code = f"import os, signal; os.kill(int(open('/tmp/operator.pid').read()), signal.{signal})"
    operator.place.kubectl("exec", pod, "--", "python", "-c", code)


def take_over(operator: Installation, place: Place, name: str, before: str) -> float:
    """Seconds until a change of the spec is carried out by another copy than `before`."""
    begin = time.monotonic()
    value = str(begin)
    place.change(name, pod={"labels": {"asked-at": value}})

    def is_done() -> bool:
        found = place.find("deployments", f"moorage.dev/deployment={name}")
        return any(item["spec"]["template"]["metadata"]["labels"].get("asked-at") == value for item in found)

    until(60, "the change is carried out", is_done, operator.logs, every=0.1)
    assert operator.leader() != before
    return time.monotonic() - begin


def test_a_standby_takes_over_from_a_leader_that_dies(place: Place, two: Installation) -> None:
    place.apply(a_model("after-death"))
    place.wait_ready("after-death")
    leader = two.leader()
    send(two, leader, "SIGKILL")

    assert take_over(two, place, "after-death", leader) < TAKEOVER_SECONDS


@pytest.mark.parametrize("seconds", [0, pytest.param(60, marks=pytest.mark.long)])
def test_a_leader_that_froze_is_replaced_and_changes_nothing_any_more(
    api: Api, place: Place, two: Installation, seconds: int
) -> None:
    name = f"after-{seconds}"
    place.apply(a_model(name))
    place.wait_ready(name)
    leader = two.leader()
    send(two, leader, "SIGSTOP")

    assert take_over(two, place, name, leader) < TAKEOVER_SECONDS
    since = audit.now()
    time.sleep(seconds)
    send(two, leader, "SIGCONT")
    until(30, "the former leader knows it", lambda: LEADS_NO_MORE in two.place.kubectl("logs", leader))
    place.wait_ready(name)
    writes = audit.writes(api, audit.service_account(two.namespace), since)
    assert {item.pod for item in writes if item.code < 400} == {two.leader()}, writes


def test_a_lease_that_is_lost_again_and_again_makes_nobody_wait_longer(place: Place, two: Installation) -> None:
    """An end of the container each time would: the kubelet waits 10, 20, 40 s and so on before it starts it again."""
    place.apply(a_model("after-many"))
    place.wait_ready("after-many")
    before, lost = _restarts(two), two.lost_leases()
    stolen = {"holderIdentity": "nobody", "leaseDurationSeconds": 1}
    for _ in range(8):
        two.place.kubectl("patch", "lease", OPERATOR, "--type=merge", f"--patch={json.dumps({'spec': stolen})}")
        until(TAKEOVER_SECONDS, "one leads", lambda: two.leader() not in ("", "nobody"))
    assert take_over(two, place, "after-many", "") < TAKEOVER_SECONDS
    assert two.lost_leases() >= lost + 8
    assert _restarts(two) == before
    place.wait_ready("after-many")


def _restarts(operator: Installation) -> dict[str, int]:
    return {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in operator.pods()}


def test_a_leader_that_is_told_to_end_hands_over_at_once(place: Place, two: Installation) -> None:
    place.apply(a_model("handed"))
    place.wait_ready("handed")
    leader = two.leader()
    send(two, leader, "SIGTERM")

    seconds = take_over(two, place, "handed", leader)

    assert seconds < TAKEOVER_SECONDS / 2


def test_models_serve_while_no_operator_runs_and_a_deletion_needs_none(
    api: Api, place: Place, operator: Installation
) -> None:
    place.apply(a_model("lonely", replicas=2), a_model("orphan", replicas=2))
    with a_namespace(api, f"{place.name}-beside") as beside:
        beside.apply(a_model("beside"))
        beside.wait_ready("beside")
        place.wait_ready("lonely", "orphan")
        operator.scale(0)
    try:
        began = time.monotonic()
        place.delete("mdep", "orphan")
        assert time.monotonic() - began < 10, "no finalizer waits for the operator"
        place.change("lonely", replicas=1)

        until(
            60, "nothing is left of the deleted one", lambda: not place.children("orphan") and not place.pods("orphan")
        )
        until(90, "the namespace is gone", lambda: beside.name not in api.kubectl("get", "namespaces"))
        assert place.ask("lonely", "/v2/models/digits-onnx")
        assert len(place.pods("lonely")) == 2
    finally:
        operator.scale(2)
    until(10, "what was asked meanwhile is carried out", lambda: len(place.pods("lonely")) == 1)


def test_two_installations_that_do_not_know_each_other_agree(
    api: Api, place: Place, operator: Installation, registry: Registry
) -> None:
    """A mistake that happens: both serve the whole cluster, each has its own Lease."""
    place.kubectl("delete", "mdep", "--all")  # a revision of another test may still be leaving
    other = Installation(api, f"{operator.namespace}-2")
    ending = ending_namespaces(api)
    try:
        other.install(other.values(registry, replicas=1))
        place.apply(a_model("fought", replicas=2, autoscaling=None))
        place.wait_ready("fought")
        users = [audit.service_account(item.namespace) for item in (operator, other)]

        def are_calm() -> bool:
            return audit.is_calm(api, users, SETTLED_SECONDS, apart_from=ending)

        until(90, "both are calm", are_calm, every=2)
        since = audit.now()
        time.sleep(2 * RESYNC_SECONDS)
        assert [audit.writes(api, user, since, apart_from=ending) for user in users] == [[], []]
    finally:
        other.uninstall()
        api.kubectl("delete", "namespace", other.namespace, "--wait=false")
