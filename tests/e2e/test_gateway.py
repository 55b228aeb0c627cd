"""On a Gateway of the platform's: versions take over by its weights, and whoever divides the requests may change, under load."""

from __future__ import annotations

import time
from typing import Any

import pytest

import load
from gateways import GATEWAY, NAMESPACE, PARENT, Gateway
from mlflow_in_cluster import Registry
from place import Object, Place, a_model, until

ROUTE = "httproutes.gateway.networking.k8s.io"
HOST = f"traefik.{NAMESPACE}.svc"
"""By which pods reach Traefik, so that a load needs no name of its own."""
INFER = "/v2/models/digits-onnx/infer"
STEPS = [{"setWeight": 20}, {"pause": {"duration": 4}}, {"setWeight": 60}, {"pause": {"duration": 4}}]
FAST: dict[str, Any] = {"steps": STEPS, "scaleDownDelaySeconds": 2, "abortScaleDownDelaySeconds": 2}
COMMAND = "moorage.dev/command"
MARK = "x-moorage-arm"


def traffic(router: str, host: str = HOST) -> Object:
    return {"router": router, "gateway": {"parentRefs": [PARENT], "hostnames": [host]}}


@pytest.fixture(scope="module")
def model(registry: Registry) -> str:
    """With three versions of the same files; `champion` is the first."""
    for _ in range(3):
        registry.copy("published")
    registry.set_alias("published", "1")
    return "published"


def weight(place: Place, name: str) -> int:
    weights = place.status(name).get("weights", {})
    return int(weights["applied"]) if weights.get("verified") else -1


def addressed(place: Place, name: str) -> str:
    """The revision that the Service of its name reaches; empty where it is not one."""
    return str(place.get("service", name)["spec"]["selector"].get("moorage.dev/revision", ""))


def test_versions_take_over_by_the_weights_of_a_gateway_and_go_back(
    place: Place, gateway: Gateway, registry: Registry, model: str
) -> None:
    registry.set_alias(model, "1")
    place.apply(a_model("stepwise", model, replicas=2, rollout=FAST, traffic=traffic("gateway")))
    place.wait_ready("stepwise")
    assert place.status("stepwise")["url"] == f"http://{HOST}"
    place.delete(ROUTE, "stepwise")
    until(30, "the route is there again", lambda: place.get(ROUTE, "stepwise").get("status"))
    place.wait_ready("stepwise")
    seen: list[int] = []
    with load.on(place, HOST, "digits-onnx", pause=0.02, by_grpc=model) as running:
        registry.set_alias(model, "2")

        def arrived() -> bool:
            seen.append(weight(place, "stepwise"))
            return place.stable_version("stepwise") == "2"

        until(180, "version 2 is stable", arrived, lambda: place.status("stepwise"))
        registry.set_alias(model, "3")
        until(120, "version 3 has 20 %", lambda: weight(place, "stepwise") == 20, lambda: place.status("stepwise"))
        canary = place.status("stepwise")["canary"]["revision"]
        stable = place.status("stepwise")["stable"]["revision"]
        assert addressed(place, "stepwise") == stable
        until(30, "requests come, and are known as the Gateway's", lambda: marked(place, canary))
        place.command("stepwise", f"abort@{canary}")
        place.wait_for_reason("stepwise", "RolledBack")
        until(60, "its pods have ended", lambda: not place.pods("stepwise", canary))
    assert running.failed == 0, running.said
    assert running.answered > 200
    assert {20, 60} <= set(seen)
    place.delete("mdep", "stepwise")
    until(30, "the route goes with it", lambda: not place.get(ROUTE, "stepwise"))


def marked(place: Place, revision: str) -> bool:
    code = "from urllib import request; print(request.urlopen('http://127.0.0.1:8082/metrics').read().decode())"
    pods = [pod["metadata"]["name"] for pod in place.find("pods", f"moorage.dev/revision={revision}")]
    texts = [place.kubectl("exec", pod, "--", "python", "-c", code) for pod in pods]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("moorage_requests_total{")]
    return any('arm="gateway"' in line and not line.endswith(" 0.0") for line in lines)


def test_changing_the_router_in_a_rollout_loses_no_request(
    place: Place, gateway: Gateway, registry: Registry, model: str
) -> None:
    """Neither for callers in the cluster nor for those of the Gateway."""
    registry.set_alias(model, "1")
    rollout = FAST | {"steps": [{"setWeight": 50}, {"pause": {}}]}
    place.apply(a_model("changes", model, replicas=2, rollout=rollout, traffic=traffic("haproxy")))
    place.wait_ready("changes")
    registry.set_alias(model, "2")
    place.wait_for_reason("changes", "Paused")
    with (
        load.on(place, "changes", "digits-onnx", pause=0.05, by_grpc=model) as inside,
        load.on(place, HOST, "digits-onnx", pause=0.05, by_grpc=model, name="load-of-gateway") as outside,
    ):
        for router in ("gateway", "replicas", "gateway", "haproxy", "replicas", "haproxy"):
            place.change("changes", traffic=traffic(router))
            wait_until_divided(place, "changes", router)
            time.sleep(3)  # a time in which nothing may fail, not a wait
        canary = place.status("changes")["canary"]["revision"]
        place.command("changes", f"promote@{canary}/1")
        until(
            90,
            "version 2 is stable",
            lambda: place.stable_version("changes") == "2",
            lambda: place.status("changes"),
        )
    assert inside.failed == 0, inside.said
    assert outside.failed == 0, outside.said
    place.delete("mdep", "changes")


def wait_until_divided(place: Place, name: str, router: str) -> None:
    until(90, f"{router} divides", lambda: divides(place, name, router), lambda: place.model(name))


def divides(place: Place, name: str, router: str) -> bool:
    """By the one that is asked for, and everything is as it ought to be."""
    if place.condition(name, "TrafficProgrammed").get("status") != "True" or weight(place, name) != 50:
        return False
    rules = place.get(ROUTE, name)["spec"]["rules"]
    backends = {backend["name"] for rule in rules for backend in rule["backendRefs"]}
    if router == "gateway":
        return name not in backends and bool(addressed(place, name))
    by_router = place.get("service", name)["spec"]["selector"].get("app.kubernetes.io/component") == "router"
    return backends == {name} and by_router is (router == "haproxy")


def test_testers_and_callers_by_grpc_come_through_the_gateway(
    place: Place, gateway: Gateway, registry: Registry, model: str
) -> None:
    registry.set_alias(model, "1")
    testers = {"setHeaderRoute": {"name": "testers", "match": {"header": "x-group", "value": "beta"}}}
    host = "testers.example.org"
    rollout = FAST | {"steps": [testers, {"pause": {}}]}
    place.apply(a_model("tested", model, replicas=2, rollout=rollout, traffic=traffic("gateway", host)))
    place.wait_ready("tested")
    registry.set_alias(model, "2")
    place.wait_for_reason("tested", "Paused")
    status = place.status("tested")
    ready = "/inference.GRPCInferenceService/ModelMetadata"
    with gateway.caller(host) as caller, gateway.channel(host) as channel:
        ask = channel.unary_unary(ready)

        def versions(**headers: str) -> tuple[str, str]:
            """By HTTP and by gRPC."""
            found = caller.ask(
                "/v2/models/published", headers={name.replace("_", "-"): value for name, value in headers.items()}
            )
            metadata = [(name.replace("_", "-"), value) for name, value in headers.items()]
            by_grpc, call = ask.with_call(b"\x0a\x09published", metadata=metadata, timeout=10)
            assert call.code().value[0] == 0
            return ",".join(found.json()["versions"]), "2" if b"\x12\x012" in by_grpc else "1"

        until(
            20,
            "testers have version 2",
            lambda: versions(x_group="beta") == ("2", "2"),
            lambda: versions(x_group="beta"),
        )
        assert {versions() for _ in range(20)} == {("1", "1")}
    place.command("tested", f"abort@{status['canary']['revision']}")
    place.wait_for_reason("tested", "RolledBack")
    place.delete("mdep", "tested")


def test_requests_that_come_otherwise_than_by_weight_hold_the_rollout(
    place: Place, gateway: Gateway, registry: Registry, model: str
) -> None:
    """Somebody's own route of the same host has a longer path, so Traefik prefers it; all it has goes to stable."""
    registry.set_alias(model, "1")
    rollout = FAST | {"steps": [{"setWeight": 50}, {"pause": {}}], "analysis": {"intervalSeconds": 5}}
    place.apply(a_model("taken", model, replicas=2, rollout=rollout, traffic=traffic("gateway")))
    place.wait_ready("taken")
    stable = place.status("taken")["stable"]["revision"]
    mark = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": MARK, "value": "gateway"}]}}
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": load.PATHS["digits-onnx"]}}],
        "filters": [mark],
        "backendRefs": [{"name": stable, "port": 8080}],
    }
    spec = {"parentRefs": [PARENT], "hostnames": [HOST], "rules": [rule]}
    other = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "own"}}
    with load.on(place, HOST, "digits-onnx", pause=0.05):
        registry.set_alias(model, "2")
        place.wait_for_reason("taken", "Paused")
        place.apply(other | {"spec": spec})
        told = place.wait_for_reason("taken", "SampleRatioMismatch", kind="TrafficProgrammed")
        assert "instead of 50 %" in told["message"]
        assert weight(place, "taken") == 50
        place.command("taken", f"abort@{place.status('taken')['canary']['revision']}")
        place.wait_for_reason("taken", "RolledBack")
    place.delete(ROUTE, "own")
    place.delete("mdep", "taken")


def test_what_a_gateway_does_not_take_is_told(place: Place, gateway: Gateway, model: str) -> None:
    narrow = GATEWAY | {"metadata": {"name": "narrow"}}
    listener = GATEWAY["spec"]["listeners"][0] | {"hostname": "only.example.org"}
    gateway.place.apply(narrow | {"spec": GATEWAY["spec"] | {"listeners": [listener]}})
    nowhere = {"router": "gateway", "gateway": {"parentRefs": [{"name": "nobody"}], "hostnames": ["a.example.org"]}}
    other = {
        "router": "gateway",
        "gateway": {"parentRefs": [PARENT | {"name": "narrow"}], "hostnames": ["b.example.org"]},
    }
    place.apply(a_model("nowhere", model, traffic=nowhere), a_model("refused", model, traffic=other))
    told = place.wait_for_reason("nowhere", "GatewayPending")
    assert f"no Gateway {place.name}/nobody has taken the HTTPRoute yet" in told["message"]
    told = place.wait_for_reason("refused", "GatewayRefused")
    assert "NoMatchingListenerHostname" in told["message"]
    assert place.condition("refused", "Available")["status"] == "False"
    place.change("refused", traffic={"gateway": {"hostnames": ["only.example.org"]}})
    place.wait_ready("refused")
    place.change("nowhere", traffic={"router": "haproxy", "gateway": {"parentRefs": []}})
    place.wait_ready("nowhere")
    place.delete("mdep", "nowhere", "refused")
    gateway.place.delete("gateway", "narrow")
