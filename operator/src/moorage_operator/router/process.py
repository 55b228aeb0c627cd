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

_LOOK_SECONDS = 0.2


def main(settings: Settings) -> None:
    asyncio.run(run(settings))


async def run(settings: Settings) -> None:
    """Until SIGTERM, and as long after it as there is a HAProxy (`soft_stop`): requests still come on kept connections, and have to go
    where they ought to by then. The operator asks no pod that ends, so it waits for none.
    """
    telemetry.set_up_logs(style=settings.log_format, level=settings.log_level)
    metrics, haproxy = Metrics(), Haproxy(settings.layout)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        connected = await stack.enter_async_context(cluster.connect())
        agent = Agent(connected, haproxy, settings, metrics, started_at=datetime.now(UTC))
        runner = await server.serve(agent, metrics, settings.port)
        stack.push_async_callback(runner.cleanup)
        working, stopped = asyncio.create_task(agent.run()), asyncio.create_task(_stopped(stop, haproxy))
        await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if working.done():
            working.result()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


async def _stopped(stop: asyncio.Event, haproxy: Haproxy) -> None:
    await stop.wait()
    while await haproxy.runs():  # noqa: ASYNC110 - the end of another container has no event
        await asyncio.sleep(_LOOK_SECONDS)
