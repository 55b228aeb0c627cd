"""The agent as a process: when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fake_cluster import FakeCluster
from moorage_operator.adapters import cluster
from moorage_operator.router import process
from moorage_operator.router.settings import Layout, Settings
from router_traffic import until


def connect_to(found: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[FakeCluster]:
        yield found

    monkeypatch.setattr(cluster, "connect", connect)


async def state(settings: Settings) -> dict[str, Any]:
    """Empty while nobody answers."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://localhost:{settings.port}/state") as answer:
            found: dict[str, Any] = await answer.json()
            return found
    except aiohttp.ClientConnectionError:
        return {}


async def test_an_agent_without_a_haproxy_ends_at_once(
    tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_to(FakeCluster(), monkeypatch)
    settings = Settings(Layout(tmp_path), port=unused_tcp_port)
    running = asyncio.create_task(process.run(settings))

    async def answers() -> bool:
        return bool(await state(settings))

    await until(answers, "the agent answers")
    os.kill(os.getpid(), signal.SIGTERM)

    await asyncio.wait_for(running, 2)
