"""The agent's port: `/state` for the operator, health for the kubelet, metrics. Read-only: nobody tells the agent anything."""

from __future__ import annotations

import msgspec
from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from moorage_operator.router.agent import Agent
from moorage_operator.router.metrics import Metrics


async def serve(agent: Agent, metrics: Metrics, port: int, *, host: str | None = None) -> web.AppRunner:
    """Start it; the caller cleans up the runner that it gets."""

    async def state(_: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(await agent.state()), content_type="application/json")

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_: web.Request) -> web.Response:
        problem = agent.not_ready()
        return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    for path, handler in {"/state": state, "/healthz": healthy, "/readyz": ready, "/metrics": show_metrics}.items():
        app.router.add_get(path, handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host=host, port=port).start()
    return runner
