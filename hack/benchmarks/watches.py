"""When something became true of an object, as a watch of the API server shows it: the same eye for the operator and the script."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import msgspec
from kubernetes.aio.client.rest import RESTClientObject

from devcluster import console
from moorage_operator.adapters.cluster import configuration
from moorage_operator.core import names
from moorage_operator.core.kinds import Kind, Manifest

Holds = Callable[[Manifest], bool]


class Milestone:
    """The moment at which `holds` was first true of each object; `moments` has them by key, in time.monotonic()."""

    def __init__(self, holds: Holds, key: Callable[[Manifest], str]) -> None:
        self.moments: dict[str, float] = {}
        self.ended = ""
        """Why nothing more will be seen."""
        self._holds = holds
        self._key = key
        self._grown = asyncio.Event()

    def see(self, manifest: Manifest, moment: float) -> None:
        key = self._key(manifest)
        if key not in self.moments and self._holds(manifest):
            self.moments[key] = moment
            self._grown.set()

    def end(self, why: str) -> None:
        self.ended = why
        self._grown.set()

    async def reached(self, count: int, within: float, what: str = "objects") -> float:
        """The moment of the last one, as soon as there are `count`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while len(self.moments) < count and not self.ended:
                    self._grown.clear()
                    await self._grown.wait()
        if len(self.moments) < count:
            raise console.Failure(
                f"only {len(self.moments)} of {count} {what}: {self.ended or f'{within:.0f} s are over'}"
            )
        return max(self.moments.values())


class Watch:
    """One kind in one namespace."""

    def __init__(self) -> None:
        self.latest: dict[str, Manifest] = {}
        """By name, what is there."""
        self.version = ""
        """The resource version up to which all has been seen."""
        self._ended = ""
        self._milestones: list[Milestone] = []

    def milestone(self, holds: Holds, *, key: Callable[[Manifest], str]) -> Milestone:
        """For what is seen from now on."""
        made = Milestone(holds, key)
        made.ended = self._ended
        self._milestones.append(made)
        return made

    def drop(self, milestone: Milestone) -> None:
        self._milestones.remove(milestone)

    def end(self, why: str) -> None:
        self._ended = why
        for milestone in self._milestones:
            milestone.end(why)

    def hear(self, line: bytes, moment: float) -> None:
        """One event of the API server."""
        event: dict[str, Any] = msgspec.json.decode(line)
        if event["type"] == "ERROR":
            raise console.Failure(f"the API server ended a watch of the benchmark: {event['object'].get('message')}")
        manifest = event["object"]
        self.version = manifest["metadata"]["resourceVersion"]
        if event["type"] == "DELETED":
            self.latest.pop(name_of(manifest), None)
        else:
            self.see(manifest, moment)

    def see(self, manifest: Manifest, moment: float) -> None:
        self.latest[name_of(manifest)] = manifest
        for milestone in self._milestones:
            milestone.see(manifest, moment)


@contextlib.asynccontextmanager
async def watch(kubeconfig: str, kind: Kind, namespace: str) -> AsyncIterator[Watch]:
    """All objects that are there, and from then on what happens to them."""
    access = await configuration.load(kubeconfig)
    settings = access.configuration
    root = f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"
    url = f"{settings.host}/{root}/namespaces/{namespace}/{kind.plural}"
    connector = aiohttp.TCPConnector(ssl=RESTClientObject(settings).ssl_context)
    forever = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=forever, raise_for_status=True) as session:
        found = Watch()
        async with session.get(url) as response:
            listed: dict[str, Any] = msgspec.json.decode(await response.read())
        found.version = listed["metadata"]["resourceVersion"]
        for manifest in listed["items"]:
            found.see(manifest, time.monotonic())
        reading = asyncio.create_task(_follow(session, url, found))
        try:
            yield found
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading


async def _follow(session: aiohttp.ClientSession, url: str, found: Watch) -> None:
    """Where the API server ends a watch, as it does with slow ones on a busy machine, the next one begins there."""
    try:
        while True:
            async with session.get(f"{url}?watch=1&timeoutSeconds=3600&resourceVersion={found.version}") as response:
                await _read(response, found)
    except Exception as error:
        found.end(f"a watch of the benchmark broke off, does its cluster still run? ({error!r})")


async def _read(response: aiohttp.ClientResponse, found: Watch) -> None:
    rest = b""
    async for chunk in response.content.iter_any():
        moment = time.monotonic()
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            found.hear(line, moment)


def name_of(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def owner_of(manifest: Manifest) -> str:
    """The ModelDeployment that a child or pod belongs to."""
    return str(manifest["metadata"].get("labels", {}).get(names.DEPLOYMENT, ""))


def is_there(manifest: Manifest) -> bool:
    return True


def has(condition: str) -> Holds:
    """Has that condition, for its present generation?"""

    def holds(manifest: Manifest) -> bool:
        generation = manifest["metadata"].get("generation", 0)
        return any(
            item["type"] == condition
            and item["status"] == "True"
            and item.get("observedGeneration", generation) == generation
            for item in manifest.get("status", {}).get("conditions", [])
        )

    return holds
