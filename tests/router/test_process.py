"""The agent as a process: when it ends, and that it works until then."""

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
from router_traffic import DEADLINE, Caller, refuses_connections, until
from router_world import Router, a_model, with_pods


@pytest.fixture
async def router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Router]:
    """HAProxy without an agent: the test runs it as the process does."""
    async with with_pods(tmp_path, canary=0) as found:
        connect_to(found.cluster, monkeypatch)
        await found.start_haproxy()
        yield found


def connect_to(found: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[FakeCluster]:
        yield found

    monkeypatch.setattr(cluster, "connect", connect)


async def holds(router: Router, version: str) -> None:
    async def seen() -> bool:
        return bool((await state(router.settings)).get("resourceVersion") == version)

    await until(seen, f"the agent says that HAProxy holds resource version {version}")


async def state(settings: Settings) -> dict[str, Any]:
    """Empty while nobody answers."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://localhost:{settings.port}/state") as answer:
            found: dict[str, Any] = await answer.json()
            return found
    except aiohttp.ClientConnectionError:
        return {}


async def kept_caller(router: Router) -> Caller:
    caller = router.caller()
    await caller.post()
    return caller


async def test_the_agent_of_a_router_that_ends_works_as_long_as_haproxy_answers(router: Router) -> None:
    """HAProxy answers on kept connections for long after it has closed its ports: the agent may not be the first to go."""
    running = asyncio.create_task(process.run(router.settings))
    await holds(router, router.write(fraud=a_model(router.port)))
    first, second = await kept_caller(router), await kept_caller(router)
    os.kill(os.getpid(), signal.SIGTERM)
    stopping = asyncio.create_task(router.stop_haproxy())
    await refuses_connections(router.port)
    pods = []
    for caller, revision in ((first, "fraud-v2"), (second, "fraud-v1")):
        await holds(router, router.write(fraud=a_model(router.port, stable=revision)))
        pods.append((await caller.post()).pod)
    assert not running.done()
    assert await stopping == 0
    await asyncio.wait_for(running, DEADLINE)

    assert pods == ["fraud-v2", "fraud-v1"]
    assert not await state(router.settings)


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
