"""The agent as a process: the composition root of `moorage-router agent`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from datetime import UTC, datetime

from moorage_operator import telemetry
from moorage_operator.adapters import cluster
from moorage_operator.router import server
from moorage_operator.router.agent import Agent
from moorage_operator.router.haproxy import Haproxy
from moorage_operator.router.metrics import Metrics
from moorage_operator.router.settings import Settings


def main(settings: Settings) -> None:
    asyncio.run(run(settings))


async def run(settings: Settings) -> None:
    """Until SIGTERM, and as long after it as HAProxy listens (`launcher`): requests still come, and have to go where they ought to
    by then. The operator asks no pod that ends, so it waits for none. HAProxy is not touched by our end: it goes on with what it has.
    """
    telemetry.set_up_logs(style=settings.log_format, level=settings.log_level)
    metrics = Metrics()
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, loop.call_later, settings.drain_seconds, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        connected = await stack.enter_async_context(cluster.connect())
        agent = Agent(connected, Haproxy(settings.layout), settings, metrics, started_at=datetime.now(UTC))
        runner = await server.serve(agent, metrics, settings.port)
        stack.push_async_callback(runner.cleanup)
        working, stopped = asyncio.create_task(agent.run()), asyncio.create_task(stop.wait())
        await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if working.done():
            working.result()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
