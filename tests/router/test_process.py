"""The agent as a process: when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from fake_cluster import FakeCluster
from moorage_operator.adapters import cluster
from moorage_operator.router import process
from moorage_operator.router.settings import Layout, Settings


async def test_the_agent_works_on_as_long_as_a_router_that_ends_still_listens(
    tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a router that ends would send requests where they were to go when its end began."""

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[FakeCluster]:
        yield FakeCluster()

    monkeypatch.setattr(cluster, "connect", connect)
    settings = Settings(Layout(tmp_path), port=unused_tcp_port, drain_seconds=1)
    running = asyncio.create_task(process.run(settings))

    async def answers() -> bool:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://localhost:{settings.port}/healthz") as it,
            ):
                return it.status == 200
        except aiohttp.ClientConnectionError:
            return False

    while not await answers():
        await asyncio.sleep(0.05)
    begin = time.monotonic()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.5)
    assert await answers()
    await asyncio.wait_for(running, 10)
    assert time.monotonic() - begin >= 1
    assert not await answers()
