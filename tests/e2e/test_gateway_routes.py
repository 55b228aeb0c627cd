"""What the operator relies on of a Gateway, with routes written by hand: weights, matches, both protocols, marks, what the status says."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

import backends
from backends import GRPC, HTTP
from fixtures_cluster import Api
from gateways import CONTROLLER, PARENT, Caller, Gateway
from place import Object, Place, a_namespace, until

ROUTE = "httproutes.gateway.networking.k8s.io"
BY_GRPC = [
    {"headers": [{"name": "content-type", "value": value}]} for value in ("application/grpc", "application/grpc+proto")
]
TESTERS = [{"headers": [{"name": "x-group", "value": "beta"}]}]
MARKED = {
    "type": "RequestHeaderModifier",
    "requestHeaderModifier": {
        "set": [{"name": "x-moorage-arm", "value": "gateway"}],
        "remove": ["x-moorage-shadow"],
    },
}
BEHIND_SECONDS = 15.0
"""After accepting a route, Traefik may go on with the one before: it takes one change in 2 s. The rest is for a busy machine."""


@pytest.fixture(scope="module")
def here(api: Api, load_image: Callable[[str, str], None]) -> Iterator[Place]:
    """Two backends, and no operator."""
    load_image("runtime", "")
    with a_namespace(api, f"moorage-e2e-{uuid.uuid4().hex[:6]}") as place:
        backends.have(place, "old", "new")
        yield place


@pytest.fixture
def caller(gateway: Gateway) -> Iterator[Caller]:
    """With a host of its own: what the route said before for another one is no answer."""
    with gateway.caller(f"{uuid.uuid4().hex[:6]}.example.org") as found:
        yield found


def a_rule(port: int = HTTP, matches: list[Object] | None = None, /, **weights: int) -> Object:
    refs = [{"name": name, "port": port, "weight": weight} for name, weight in weights.items()]
    return {"backendRefs": refs, "filters": [MARKED]} | ({"matches": matches} if matches else {})


def routed(place: Place, caller: Caller, *rules: Object) -> None:
    """Returns when the route is accepted as it is."""
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "echo"},
        "spec": {"parentRefs": [PARENT], "hostnames": [caller.host], "rules": list(rules)},
    }
    place.apply(route)
    until(10, "the route is accepted", lambda: condition(place, "Accepted").get("status") == "True", every=0.05)


def condition(place: Place, kind: str) -> Object:
    """Of the route, as it is now, by our Gateway; empty if it has told none yet."""
    route = place.get(ROUTE, "echo")
    generation = route["metadata"]["generation"]
    parents = [item for item in route.get("status", {}).get("parents", []) if item["controllerName"] == CONTROLLER]
    found = [item for parent in parents for item in parent["conditions"] if item["type"] == kind]
    return dict(found[0]) if found and found[0]["observedGeneration"] == generation else {}


def answers(caller: Caller, times: int, **headers: str) -> Counter[str]:
    """By name of the backend, or status where it is no 200."""
    seen: Counter[str] = Counter()
    for _ in range(times):
        answer = caller.ask(headers={name.replace("_", "-"): value for name, value in headers.items()})
        seen[answer.json()["name"] if answer.status == 200 else str(answer.status)] += 1
    return seen


def settled(caller: Caller, expected: set[str]) -> None:
    until(BEHIND_SECONDS, f"{expected} answer", lambda: set(answers(caller, 20)) == expected, every=0.05)


def test_weights_are_kept_and_a_header_rule_wins(here: Place, caller: Caller) -> None:
    routed(here, caller, a_rule(old=90, new=10), a_rule(HTTP, TESTERS, new=1))
    settled(caller, {"old", "new"})

    seen = answers(caller, 2000)
    assert seen.keys() == {"old", "new"}
    assert 160 <= seen["new"] <= 240
    assert answers(caller, 50, x_group="beta").keys() == {"new"}


def test_one_route_has_both_protocols_and_marks_what_passes(here: Place, gateway: Gateway, caller: Caller) -> None:
    routed(here, caller, a_rule(old=1), a_rule(GRPC, BY_GRPC, new=1))
    settled(caller, {"old"})

    sent = {"x-moorage-arm": "canary", "x-moorage-shadow": "new", "x-user-id": "7"}
    by_http = caller.ask(headers=sent).json()
    with gateway.channel(caller.host) as channel:
        by_grpc = json.loads(channel.unary_unary("/any.Service/Method")(b"", metadata=[*sent.items()], timeout=10))

    assert (by_http["name"], by_grpc["name"]) == ("old", "new")
    for got in (by_http["headers"], by_grpc["headers"]):
        assert (got["x-moorage-arm"], got["x-user-id"]) == ("gateway", "7")
        assert "x-moorage-shadow" not in got


def test_a_changed_route_is_accepted_at_its_generation_and_requests_follow(here: Place, caller: Caller) -> None:
    routed(here, caller, a_rule(old=100, new=0))
    settled(caller, {"old"})

    routed(here, caller, a_rule(old=0, new=100))

    assert condition(here, "ResolvedRefs")["status"] == "True"
    settled(caller, {"new"})
    assert answers(caller, 200).keys() == {"new"}


@pytest.mark.parametrize("service", ["without pods", "that is not there"])
def test_what_can_not_answer_fails_its_share_and_nothing_at_weight_0(here: Place, caller: Caller, service: str) -> None:
    here.apply(backends.a_service("nobody"))
    name, status, resolved = ("nobody", "503", "True") if service == "without pods" else ("missing", "500", "False")

    routed(here, caller, a_rule(old=1, **{name: 1}))
    settled(caller, {"old", status})
    assert condition(here, "ResolvedRefs")["status"] == resolved

    routed(here, caller, a_rule(old=1, **{name: 0}))
    settled(caller, {"old"})
    assert condition(here, "ResolvedRefs")["status"] == resolved
