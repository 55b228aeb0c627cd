"""The agent's port."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
from prometheus_client import generate_latest

from moorage_operator.router import server
from moorage_operator.router.metrics import Metrics
from router_traffic import until
from router_world import Router, a_canary, a_model

DOCUMENT = Path(__file__).parents[2] / "docs/router.md"


async def test_state_is_what_haproxy_holds(router: Router) -> None:
    arm = {"name": "challenger", "revision": "fraud-v2", "weight": 1000}
    version = router.write(fraud=a_model(router.port, canary=a_canary(500), arms=[arm], salt="f00d"))
    await router.holds(version)
    await router.ask(["a"])
    await until(lambda: counted(router), "the request is counted")
    runner = await server.serve(router.agent, router.metrics, router.settings.port, host="127.0.0.1")
    base = f"http://127.0.0.1:{router.settings.port}"
    try:
        async with aiohttp.ClientSession(base) as session:
            state = await (await session.get("/state")).json()
            statuses = [(await session.get(path)).status for path in ("/healthz", "/readyz", "/metrics")]
    finally:
        await runner.cleanup()

    fraud = state["models"]["fraud"]
    assert (state["resourceVersion"], state["problem"], statuses) == (version, "", [200, 200, 200])
    assert fraud["canary"] == {"revision": "fraud-v2", "weight": 500, "salt": "c0ffee"}
    assert fraud["arms"] == [arm]
    assert fraud["endpoints"] == {"fraud-v1": 2, "fraud-v2": 1}
    assert set(fraud["counters"]) == {"stable", "canary", "challenger", "fallback"}
    assert sum(counters["requests"] for counters in fraud["counters"].values()) == 1
    assert set(fraud["counters"]["stable"]) == {
        "requests", "bad", "canceled", "connectErrors", "responseErrors", "retries",
    }  # fmt: skip


async def counted(router: Router) -> bool:
    return any(counters["requests"] for counters in (await router.counters()).values())


async def test_haproxy_s_own_metrics_are_on_a_port_of_their_own(router: Router) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{router.settings.layout.metrics_port}") as session:
        health = await session.get("/healthz")
        metrics = await (await session.get("/metrics")).text()
        other = await session.get("/anything")

    assert (health.status, other.status) == (200, 404)
    assert 'haproxy_backend_http_requests_total{proxy="fraud:stable:http"}' in metrics


def test_each_metric_and_each_setting_is_documented() -> None:
    text = DOCUMENT.read_text()
    exposed = re.findall(r"^# HELP (moorage_\w+)", generate_latest(Metrics().registry).decode(), re.MULTILINE)
    metrics = {name for name in exposed if not name.endswith("_created")}
    source = (DOCUMENT.parents[1] / "operator/src/moorage_operator/router/settings.py").read_text()
    names = set(re.findall(r'"([A-Z_]+)", (?:layout|defaults)\.', source)) | set(
        re.findall(r"PREFIX}([A-Z_]+)", source)
    )

    assert set(re.findall(r"`(moorage_router_\w+)`", text)) == metrics
    assert set(re.findall(r"`MOORAGE_ROUTER_([A-Z_]+)`", text)) == names
