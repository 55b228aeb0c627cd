"""Published on a Gateway of the platform's, in a whole small world: who divides the requests, and what is told when nobody does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from moorage_operator import errors
from moorage_operator.core.kinds import HTTP_ROUTE, MODEL_DEPLOYMENT, Manifest
from world import World, failing

STEPS = [{"setWeight": 25}, {"pause": {}}]
PUBLIC = {"parentRefs": [{"name": "public", "namespace": "infra"}], "hostnames": ["fraud.example.com"]}
BY_GATEWAY = {"router": "gateway", "gateway": PUBLIC}
BY_ROUTER = {"router": "haproxy", "gateway": PUBLIC}
BY_PODS = {"router": "replicas", "gateway": PUBLIC}


@pytest.fixture
async def served() -> World:
    """Version 3 answers; version 4 will come by steps."""
    made = World()
    made.move_alias("3")
    made.apply(replicas=4, traffic=BY_GATEWAY, rollout={"steps": STEPS})
    await made.settle()
    return made


def route(served: World) -> Manifest:
    (found,) = served.all(HTTP_ROUTE)
    return found


def shares(served: World) -> dict[str, int]:
    """What the route sends to which version, by HTTP."""
    backends = route(served)["spec"]["rules"][-1]["backendRefs"]
    return {served.version(item["name"]): item["weight"] for item in backends}


def addressed(served: World) -> str:
    """The version that callers of the Service get."""
    return served.traffic()


async def test_the_first_version_is_published_and_the_url_is_the_gateways(served: World) -> None:
    assert shares(served) == {"3": 100}
    assert addressed(served) == "3"
    assert served.status["url"] == "http://fraud.example.com"
    assert served.condition("Ready") == ("True", "Promoted")
    assert route(served)["metadata"]["ownerReferences"][0]["name"] == "fraud"


async def test_both_protocols_are_divided_alike_and_their_requests_marked(served: World) -> None:
    served.move_alias("4")
    await served.settle()
    by_grpc, by_http = route(served)["spec"]["rules"]
    wanted = [(served.revision("3"), 75), (served.revision("4"), 25)]
    assert [(item["name"], item["weight"]) for item in by_grpc["backendRefs"]] == wanted
    assert [(item["name"], item["weight"]) for item in by_http["backendRefs"]] == wanted
    assert {item["port"] for item in by_grpc["backendRefs"]} == {8081}
    assert {item["port"] for item in by_http["backendRefs"]} == {8080}
    assert [match["headers"][0]["value"] for match in by_grpc["matches"]] == [
        "application/grpc",
        "application/grpc+proto",
    ]
    assert by_http["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    for rule in (by_grpc, by_http):
        assert rule["filters"][0]["requestHeaderModifier"] == {
            "set": [{"name": "x-moorage-arm", "value": "gateway"}],
            "remove": ["x-moorage-shadow"],
        }


async def test_a_canary_takes_over_while_the_service_reaches_stable_only(served: World) -> None:
    served.move_alias("4")
    await served.settle()
    assert shares(served) == {"3": 75, "4": 25}
    assert addressed(served) == "3"
    assert served.status["weights"] == {"desired": 25, "applied": 25, "verified": True}
    served.command(f"promote@{served.revision('4')}/1")
    await served.settle()
    assert shares(served) == {"4": 100}
    assert addressed(served) == "4"
    assert served.condition("Ready") == ("True", "Promoted")
    await served.pass_time(31)
    assert served.counts() == {"3": 0, "4": 4}


async def test_a_weight_counts_when_the_gateway_has_taken_the_route_as_it_is_now(served: World) -> None:
    served.gateway.sleeps = True
    served.move_alias("4")
    await served.settle()
    assert shares(served) == {"3": 75, "4": 25}
    assert served.status["weights"] == {"desired": 25, "verified": False}
    assert served.status["currentStepIndex"] == 0
    assert served.condition("Available") == ("True", "Serving"), "it took the route as it was before"
    served.gateway.sleeps = False
    await served.settle()
    assert served.status["currentStepIndex"] == 1


async def send(served: World, *, stable: int, canary: int) -> None:
    """By the Gateway, until the next look."""
    served.agents.traffic.send("gateway", served.revision("3"), stable)
    served.agents.traffic.send("gateway", served.revision("4"), canary)
    await served.pass_time(15)


async def test_requests_that_come_otherwise_than_by_weight_are_told(served: World) -> None:
    served.move_alias("4")
    await served.settle()
    await send(served, stable=500, canary=0)
    assert served.condition("TrafficProgrammed") == ("True", "Programmed"), "some may go the way from before for 10 s"
    await send(served, stable=75, canary=25)
    assert served.condition("TrafficProgrammed") == ("True", "Programmed")
    served.agents.traffic.silent.add(served.revision("4"))
    await send(served, stable=75, canary=25)
    assert served.condition("TrafficProgrammed") == ("True", "Programmed"), "who is silent may have counted some"
    served.agents.traffic.silent.clear()
    await send(served, stable=75, canary=25)
    await send(served, stable=500, canary=0)
    assert served.condition("TrafficProgrammed") == ("False", "SampleRatioMismatch")
    assert "25 of 600 requests (4.2%) went to" in served.status["message"]


async def test_what_is_put_back_keeps_its_pods_until_the_gateway_knows(served: World) -> None:
    served.move_alias("4")
    await served.settle()
    canary = served.revision("4")
    served.gateway.sleeps = True
    served.command(f"abort@{canary}")
    await served.settle()
    assert shares(served) == {"3": 100}
    await served.pass_time(60)
    assert served.counts()["4"], "the Gateway may still send it requests"
    served.gateway.sleeps = False
    await served.settle()
    await served.pass_time(1)
    assert served.counts() == {"3": 4, "4": 0}


async def test_superseded_pods_stay_as_long_as_the_proxies_of_a_gateway_need(served: World) -> None:
    served.move_alias("4")
    await served.settle()
    served.move_alias("5")
    await served.settle()
    assert served.counts()["4"], "taken is not yet done: proxies follow a little later"
    await served.pass_time(11)
    assert served.counts()["4"] == 0
    await served.settle()
    assert shares(served) == {"3": 75, "5": 25}


async def test_testers_are_a_rule_of_their_own(served: World) -> None:
    testers = {"name": "testers", "match": {"header": "x-group", "value": "beta"}}
    served.apply(rollout={"steps": [{"setHeaderRoute": testers}, {"pause": {}}]})
    served.move_alias("4")
    await served.settle()
    assert served.status["currentStepIndex"] == 1
    assert served.status["headerRoutes"][0]["value"] == "beta"
    grpc, http, *rest = route(served)["spec"]["rules"]
    canary = served.revision("4")
    assert [item["name"] for item in http["backendRefs"]] == [canary]
    assert http["matches"][0]["headers"] == [{"type": "Exact", "name": "x-group", "value": "beta"}]
    assert {len(match["headers"]) for match in grpc["matches"]} == {2}
    assert grpc["filters"][0]["requestHeaderModifier"]["set"][0]["value"] == "gateway/match"
    assert [item["name"] for item in rest[-1]["backendRefs"]] == [served.revision("3")]
    served.command(f"abort@{canary}")
    await served.settle()
    assert len(route(served)["spec"]["rules"]) == 2


def refused(served: World) -> Iterator[tuple[str, str]]:
    for kind in ("TrafficProgrammed", "Available", "Ready"):
        yield served.condition(kind)


async def test_a_gateway_that_is_not_there_is_told_and_found_when_it_comes() -> None:
    served = World()
    served.gateway.is_there = False
    served.move_alias("3")
    served.apply(replicas=2, traffic=BY_GATEWAY)
    await served.settle()
    assert served.condition("Available") == ("False", "Pending")
    assert "GatewayPending" not in served.events(), "nobody is warned of what takes a moment"
    assert served.again_at is not None
    await served.pass_time(11)
    assert set(refused(served)) == {("False", "GatewayPending")}
    assert served.message("Ready").startswith("no Gateway infra/public has taken the HTTPRoute yet")
    assert served.condition("Stalled") == ("absent", "")
    await served.pass_time(601)
    assert served.condition("Stalled") == ("True", "ProgressDeadlineExceeded")
    assert "no Gateway infra/public" in served.message("Stalled")
    served.gateway.is_there = True
    await served.settle()
    assert served.condition("Ready") == ("True", "Promoted")


async def test_a_gateway_that_refuses_is_quoted() -> None:
    served = World()
    served.gateway.refusal = "NotAllowedByListeners"
    served.move_alias("3")
    served.apply(replicas=2, traffic=BY_GATEWAY)
    await served.settle()
    assert served.condition("TrafficProgrammed") == ("Unknown", "Pending"), "it may not have seen the Services yet"
    await served.pass_time(11)
    assert set(refused(served)) == {("False", "GatewayRefused")}
    assert "NotAllowedByListeners: not this one" in served.message("Ready")


async def test_a_cluster_without_the_gateway_api_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    served = World()
    served.move_alias("3")
    apply = served.cluster.apply

    async def without_it(manifest: Manifest, **options: Any) -> Manifest:
        if manifest["kind"] == "HTTPRoute":
            raise errors.Invalid("apply HTTPRoute payments/fraud: 404 page not found", status=404)
        return await apply(manifest, **options)

    monkeypatch.setattr(served.cluster, "apply", without_it)
    served.apply(replicas=2, traffic=BY_GATEWAY)
    for _ in range(5):
        with pytest.raises(errors.Invalid):
            await served.reconcile()
        served.run_controllers()
    assert served.condition("TrafficProgrammed") == ("False", "GatewayRefused")
    assert "has the cluster the Gateway API, gateway.networking.k8s.io/v1?" in served.message("TrafficProgrammed")
    assert "404" in served.message("TrafficProgrammed")


async def test_somebody_elses_route_of_that_name_is_left_alone() -> None:
    served = World()
    theirs = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "fraud", "namespace": "payments"},
        "spec": {"parentRefs": [{"name": "public"}], "rules": []},
    }
    served.cluster.add(theirs)
    served.move_alias("3")
    served.apply(replicas=2, traffic=BY_GATEWAY)
    await served.settle()
    assert served.condition("TrafficProgrammed") == ("False", "NameConflict")
    assert "remove that HTTPRoute" in served.message("Ready")
    assert "rules" not in route(served)["spec"]


async def test_what_somebody_changed_in_the_route_is_put_back(served: World) -> None:
    ref = served.ref(HTTP_ROUTE)
    served.cluster.edit(ref, lambda live: live["spec"]["rules"][-1]["backendRefs"][0].update(weight=1))
    await served.settle()
    assert shares(served) == {"3": 100}
    served.cluster.remove(ref)
    await served.settle()
    assert shares(served) == {"3": 100}


def backends(served: World) -> set[str]:
    return {item["name"] for rule in route(served)["spec"]["rules"] for item in rule["backendRefs"]}


@pytest.mark.parametrize("other", [BY_ROUTER, BY_PODS], ids=["haproxy", "replicas"])
async def test_with_another_router_the_route_leads_to_the_address(served: World, other: dict[str, Any]) -> None:
    """And it divides until that does."""
    served.apply(replicas=3, rollout={"steps": [{"setWeight": 50}, {"pause": {}}]})
    served.move_alias("4")
    await served.settle()
    assert shares(served) == {"3": 50, "4": 50}
    served.agents.deaf = {"*"}
    served.apply(traffic=other)
    await served.settle()
    if other is BY_ROUTER:
        assert shares(served) == {"3": 50, "4": 50}, "the routers do not know yet what to do with what comes"
    served.agents.deaf = set()
    await served.settle()
    assert backends(served) == {"fraud"}
    assert {item["port"] for rule in route(served)["spec"]["rules"] for item in rule["backendRefs"]} == {80, 8081}
    assert addressed(served) == "3+4"
    assert served.status["url"] == "http://fraud.example.com"
    assert served.status["weights"] == {"desired": 50, "applied": 50, "verified": True}


async def test_from_the_router_to_a_gateway_under_way(served: World) -> None:
    served.apply(traffic={"router": "haproxy"})
    await served.settle()
    assert served.all(HTTP_ROUTE) == []
    assert served.status["url"] == "http://fraud.payments.svc"
    served.move_alias("4")
    await served.settle()
    assert addressed(served) == "3+4"
    served.gateway.sleeps = True
    served.apply(traffic=BY_GATEWAY)
    await served.settle()
    assert shares(served) == {"3": 75, "4": 25}
    assert served.status["weights"] == {"desired": 25, "verified": False}
    assert served.counts() == {"3": 4, "4": 2}
    served.gateway.sleeps = False
    await served.settle()
    assert served.status["weights"] == {"desired": 25, "applied": 25, "verified": True}
    assert addressed(served) == "3"


async def test_unpublished_it_goes_when_somebody_else_divides(served: World) -> None:
    served.agents.deaf = {"*"}
    served.apply(traffic={"router": "haproxy"})
    await served.settle()
    assert shares(served) == {"3": 100}
    served.agents.deaf = set()
    await served.settle()
    assert served.all(HTTP_ROUTE) == []


async def test_unpublished_it_leaves_a_canary_without_pods_before_somebody_else_divides(served: World) -> None:
    """A Gateway answers 503 for what it would send to a Service without ready endpoints; nobody else answers for it."""
    served.move_alias("4")
    await served.settle()
    served.agents.deaf = {"*"}
    served.apply(traffic={"router": "haproxy"})
    await served.settle()
    assert shares(served) == {"3": 75, "4": 25}
    served.fates["4"] = failing("ModelLoadFailed")
    served.run_controllers()
    await served.settle()
    assert shares(served) == {"3": 100}
    assert route(served)["spec"]["hostnames"] == ["fraud.example.com"]
    served.agents.deaf = set()
    await served.settle()
    assert served.all(HTTP_ROUTE) == []


async def test_until_the_router_takes_over_nobody_is_known_by_a_cookie(served: World) -> None:
    """The API server refuses a rule about a header without a name."""
    testers = {"setHeaderRoute": {"name": "staff", "match": {"cookie": "staff", "value": "yes"}}}
    served.agents.deaf = {"*"}
    served.apply(traffic=BY_ROUTER, rollout={"steps": [testers, {"pause": {}}]})
    served.move_alias("4")
    await served.settle()
    assert served.status["headerRoutes"] == [{"name": "staff", "value": "yes", "cookie": "staff"}]
    matches = [match for rule in route(served)["spec"]["rules"] for match in rule["matches"]]
    assert {header["name"] for match in matches for header in match.get("headers", ())} == {"content-type"}


async def test_an_operator_that_begins_anew_under_way_moves_nothing(served: World) -> None:
    served.move_alias("4")
    await served.settle()
    before = served.cluster._revision
    served.restart()
    await served.settle()
    assert served.cluster._revision == before


async def test_a_listener_for_https_is_in_the_url(served: World) -> None:
    parent = {"name": "public", "namespace": "infra", "sectionName": "https-models", "port": 8443}
    served.apply(traffic={"router": "gateway", "gateway": PUBLIC | {"parentRefs": [parent]}})
    await served.settle()
    assert served.status["url"] == "https://fraud.example.com:8443"
    assert served.all(MODEL_DEPLOYMENT)[0]["status"]["phase"] == "Healthy"
