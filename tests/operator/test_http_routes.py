"""The HTTPRoutes that the cluster has get into the index, in a cluster that has none of that kind, too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import simulated_time
from fake_cluster import FakeCluster
from moorage_operator import errors
from moorage_operator.core import names
from moorage_operator.core.kinds import HTTP_ROUTE, Manifest, Ref
from moorage_operator.core.names import Key
from moorage_operator.http_routes import AGAIN_SECONDS, HttpRoutes
from moorage_operator.index import Index

NO_API = errors.Invalid("list httproutes: 404 page not found", status=404)


def a_route(name: str, namespace: str = "payments") -> Manifest:
    labels = names.MANAGED | {names.DEPLOYMENT: name}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": HTTP_ROUTE.api_version, "kind": "HTTPRoute", "metadata": metadata, "spec": {}}


def ref(name: str, namespace: str = "payments") -> Ref:
    return Ref(HTTP_ROUTE, namespace, name)


class Following:
    """A cluster, what follows it, and whom that woke."""

    def __init__(self, *namespaces: str) -> None:
        self.cluster, self.index = FakeCluster(), Index()
        self.woken: list[object] = []
        self.routes = HttpRoutes(self.cluster, index=self.index, namespaces=namespaces, wake=self.woken.append)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.routes.run())
        await asyncio.sleep(1)
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def test_what_happens_to_a_route_wakes_whose_it_is() -> None:
    async def play() -> None:
        at = Following()
        at.cluster.add(a_route("fraud"))
        async with at.run():
            assert at.woken == [Key("payments", "fraud")]
            at.cluster.edit(ref("fraud"), lambda live: live.update(status={"parents": []}), subresource="status")
            await asyncio.sleep(1)
            assert at.index.child(Key("payments", "fraud"), ref("fraud"))
            at.cluster.remove(ref("fraud"))
            await asyncio.sleep(1)
        assert at.woken == [Key("payments", "fraud")] * 3
        assert at.index.object(ref("fraud")) is None

    simulated_time.run(play())


def test_equal_names_in_two_namespaces_are_two() -> None:
    async def play() -> None:
        at = Following()
        at.cluster.add(a_route("fraud"))
        at.cluster.add(a_route("fraud", "lending"))
        async with at.run():
            at.cluster.remove(ref("fraud"))
            await asyncio.sleep(1)
        assert at.index.refs(HTTP_ROUTE) == {ref("fraud", "lending")}

    simulated_time.run(play())


def test_with_namespaces_of_its_own_it_looks_at_no_others() -> None:
    async def play() -> None:
        at = Following("payments")
        at.cluster.add(a_route("fraud"))
        at.cluster.add(a_route("fraud", "lending"))
        assert await at.routes.relist() == 0
        async with at.run():
            assert at.index.refs(HTTP_ROUTE) == {ref("fraud")}

    simulated_time.run(play())


def test_our_own_write_is_not_taken_for_gone_before_the_watch_tells_of_it() -> None:
    async def play() -> None:
        at = Following()
        at.cluster.add(a_route("other"))
        async with at.run():
            at.index.put(
                HTTP_ROUTE,
                a_route("fraud") | {"metadata": a_route("fraud")["metadata"] | {"uid": "u", "resourceVersion": "9"}},
            )
            at.cluster.edit(ref("other"), lambda live: live.update(status={}), subresource="status")
            await asyncio.sleep(1)
            assert at.index.object(ref("fraud"))

    simulated_time.run(play())


@pytest.mark.parametrize("error", [NO_API, errors.Forbidden("may not list")], ids=["no API", "no right"])
def test_a_cluster_without_it_is_asked_again_from_time_to_time(error: errors.ClusterError) -> None:
    async def play() -> None:
        at = Following()
        at.cluster.add(a_route("fraud"))
        at.cluster.watches.set_down(error)
        async with at.run():
            await asyncio.sleep(10 * AGAIN_SECONDS)
            assert at.cluster.watches.refused == 11
            at.cluster.watches.set_down(None)
            await asyncio.sleep(AGAIN_SECONDS)
            assert at.index.object(ref("fraud"))

    simulated_time.run(play())


def test_a_list_finds_what_went_without_an_event() -> None:
    async def play() -> None:
        at = Following()
        at.cluster.add(a_route("fraud"))
        await at.routes.relist()
        assert at.index.object(ref("fraud"))
        at.cluster.remove(ref("fraud"))
        assert await at.routes.relist() == 1
        assert at.index.object(ref("fraud")) is None

    simulated_time.run(play())
