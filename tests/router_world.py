"""A router of our own for the tests: a real HAProxy and its agent on loopback, an in-memory cluster, and small model pods."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fake_cluster import FakeCluster
from moorage_operator import errors
from moorage_operator.core import kinds
from moorage_operator.core.kinds import Manifest, Ref
from moorage_operator.router.agent import Agent
from moorage_operator.router.haproxy import Haproxy
from moorage_operator.router.metrics import Metrics
from moorage_operator.router.settings import Layout, Settings
from router_traffic import DEADLINE, Answer, Caller, Pod, until

NAMESPACE = "models"
CONFIG_MAP = Ref(kinds.CONFIG_MAP, NAMESPACE, "moorage-router")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [item.getsockname()[1] for item in sockets]


def a_model(port: int, **fields: Any) -> dict[str, Any]:
    return {"port": port, "stable": "fraud-v1", "timeoutSeconds": 5, "stickiness": {"header": "x-user-id"}} | fields


def a_canary(weight: int, revision: str = "fraud-v2", salt: str = "c0ffee") -> dict[str, Any]:
    return {"revision": revision, "weight": weight, "salt": salt}


def a_slice(
    revision: str,
    ports: Mapping[str, int],
    *,
    ip: str = "127.0.0.1",
    number: int = 0,
    conditions: Mapping[str, bool] | None = None,
) -> Manifest:
    """All pods of a test have one address, so each has a slice with its own ports."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{revision}-{number}",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": revision, "app.kubernetes.io/managed-by": "moorage"},
        },
        "addressType": "IPv4",
        "ports": [{"name": name, "port": port} for name, port in ports.items()],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True, **(conditions or {})}}],
    }


class Router:
    """What a test holds in its hands."""

    def __init__(self, folder: Path) -> None:
        self.cluster = FakeCluster()
        agent_port, metrics_port, self.port, self.second_port, *self._spare = free_ports(40)
        layout = Layout(folder, bind="127.0.0.1", metrics_port=metrics_port, max_connections=1000)
        self.settings = Settings(layout, namespace=NAMESPACE, port=agent_port, drain_seconds=0)
        self.haproxy = Haproxy(layout, reload_seconds=5)
        self.metrics = Metrics()
        self.agent = self._an_agent()
        self.process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._pods: list[Pod] = []
        self._callers: list[Caller] = []

    def _an_agent(self) -> Agent:
        return Agent(self.cluster, self.haproxy, self.settings, self.metrics, started_at=datetime.now(UTC))

    # The two containers.

    async def start_haproxy(self) -> None:
        layout = self.settings.layout
        environment = os.environ | {
            "MOORAGE_ROUTER_FOLDER": str(layout.folder),
            "MOORAGE_ROUTER_DRAIN_SECONDS": str(self.settings.drain_seconds),
        }
        log = (layout.folder / "haproxy.log").open("ab")
        with log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "moorage_operator.router", "haproxy", env=environment, stdout=log, stderr=log
            )

    async def stop_haproxy(self, number: int = signal.SIGTERM) -> int:
        assert self.process
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()

    async def start(self, **models: Any) -> None:
        """Both containers, with these models."""
        self.settings.layout.folder.mkdir()
        version = self.write(**models)
        await self.start_haproxy()
        self.start_agent()
        await self.holds(version)

    def start_agent(self) -> None:
        self._task = asyncio.create_task(self.agent.run())

    async def stop_agent(self) -> None:
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def restart_agent(self) -> None:
        await self.stop_agent()
        self.agent = self._an_agent()
        self.start_agent()

    async def close(self) -> None:
        await self.stop_agent()
        if self.process and self.process.returncode is None:
            await self.kill_worker_and_wait()
        for pod in self._pods:
            await pod.kill()
        for caller in self._callers:
            await caller.close()

    async def kill_worker_and_wait(self) -> None:
        """The end of HAProxy by a dead worker: its master takes itself down."""
        sample = await self.haproxy.sample()
        os.kill(sample.worker.pid, signal.SIGKILL)
        assert self.process
        async with asyncio.timeout(DEADLINE):
            await self.process.wait()

    # The cluster.

    async def add_pod(self, revision: str, *, listed: bool = True) -> Pod:
        pod = Pod(revision, self._spare.pop())
        await pod.start()
        self._pods.append(pod)
        if listed:
            self.list_pod(revision, http=pod.port)
        return pod

    def list_pod(self, revision: str, **ports: int) -> None:
        self.cluster.add(a_slice(revision, ports, number=min(ports.values())))

    def unlist_pod(self, pod: Pod) -> None:
        self.cluster.remove(Ref(kinds.ENDPOINT_SLICE, NAMESPACE, f"{pod.revision}-{pod.port}"))

    def write(self, **models: Any) -> str:
        """The ConfigMap, and its resource version."""
        return self.write_text(json.dumps({"models": models}))

    def write_text(self, document: str) -> str:
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CONFIG_MAP.name, "namespace": NAMESPACE},
            "data": {"router.json": document},
        }

        def change(live: Manifest) -> None:
            live["data"] = manifest["data"]

        try:
            stored = self.cluster.add(manifest)
        except errors.AlreadyExists:
            stored = self.cluster.edit(CONFIG_MAP, change)
        return str(stored["metadata"]["resourceVersion"])

    # What happens.

    async def lose_an_answer(self) -> None:
        """One request is answered, and under the next one on the same connection the only pod of stable dies: nothing can be said."""
        pod, asked = await self.hold_an_answer(asyncio.Event())
        await pod.kill()
        with pytest.raises(ConnectionResetError):
            await asked

    async def hold_an_answer(self, hold: asyncio.Event) -> tuple[Pod, asyncio.Task[Answer]]:
        """The only pod of stable, `fraud-v5`, has answered one request, and keeps back what it says to the next one on that connection."""
        pod = await self.add_pod("fraud-v5")
        await self.apply(fraud=a_model(self.port, stable="fraud-v5"))
        await self.up("fraud-v5", 1)
        caller = self.caller()
        await caller.post()
        pod.hold = hold
        asked = asyncio.create_task(caller.post())
        await pod.asked(2)
        return pod, asked

    def caller(self, port: int = 0) -> Caller:
        """Closed with the router."""
        self._callers.append(Caller(port or self.port))
        return self._callers[-1]

    async def state(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(await self.agent.state())
        return found

    async def holds(self, version: str) -> None:
        async def seen() -> bool:
            return bool((await self.state())["resourceVersion"] == version)

        await until(seen, f"HAProxy holds resource version {version}")

    async def apply(self, **models: Any) -> None:
        await self.holds(self.write(**models))

    async def counters(self, model: str = "fraud") -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = (await self.state())["models"][model]["counters"]
        return found

    async def counted(self, role: str, **expected: int) -> None:
        """Two looks of the agent tell all that there is to count."""
        found: dict[str, int] = {}

        async def seen() -> bool:
            found.update((await self.counters())[role])
            return expected.items() <= found.items()

        try:
            await until(seen, f"{role} has counted {expected}", seconds=5)
        except AssertionError as error:
            raise AssertionError(f"{error}, but {found}") from None

    async def up(self, revision: str, count: int, model: str = "fraud") -> None:
        async def seen() -> bool:
            state = await self.state()
            return bool(state["models"] and state["models"][model]["endpoints"].get(revision) == count)

        await until(seen, f"{count} servers of {revision} are up")

    @property
    def reloads(self) -> float:
        """That went well."""
        return self.metrics.registry.get_sample_value("moorage_router_reloads_total", {"result": "ok"}) or 0

    async def haproxy_has(self, servers: Iterable[str], backend: str = ":grpc") -> None:
        async def seen() -> bool:
            found = (await self.haproxy.sample()).pools
            up = {
                server.name for name, pool in found.items() if backend in name for server in pool.servers if server.up
            }
            return set(servers) <= up

        await until(seen, f"HAProxy has {servers}")

    async def haproxy_has_not(self, server: str, backend: str = ":grpc") -> None:
        async def seen() -> bool:
            found = (await self.haproxy.sample()).pools
            return not any(
                item.name == server and item.up
                for name, pool in found.items()
                if backend in name
                for item in pool.servers
            )

        await until(seen, f"HAProxy sends {server} nothing")

    async def ask(self, keys: Iterable[str], *, header: str = "x-user-id", **headers: str) -> dict[str, Answer]:
        """One request for each key, over some kept-alive connections."""
        found: dict[str, Answer] = {}
        queue = list(keys)

        async def work() -> None:
            caller = Caller(self.port)
            while queue:
                key = queue.pop()
                found[key] = await caller.post({header: key, **headers})
            await caller.close()

        await asyncio.gather(*(work() for _ in range(8)))
        return found


@contextlib.asynccontextmanager
async def with_pods(folder: Path, *, canary: int) -> AsyncIterator[Router]:
    """A router that has not been started, two pods of stable, one of the canary, and its share in the ConfigMap."""
    found = Router(folder)
    try:
        for revision in ("fraud-v1", "fraud-v1", "fraud-v2"):
            await found.add_pod(revision)
        found.write(fraud=a_model(found.port, canary=a_canary(canary)))
        yield found
    finally:
        await found.close()
