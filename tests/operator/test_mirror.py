"""What is kept of a selection while lists, watches and the API server come and go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import simulated_time
from fake_cluster import FakeCluster
from moorage_operator import errors
from moorage_operator.core import kinds
from moorage_operator.core.kinds import Ref
from moorage_operator.mirror import Mirror
from moorage_operator.ports import Selection
from router_world import NAMESPACE, a_slice

SLICES = Selection(kinds.ENDPOINT_SLICE, NAMESPACE, labels={"app.kubernetes.io/managed-by": "moorage"})
PORTS = {"http": 8080}


@asynccontextmanager
async def mirroring(cluster: FakeCluster) -> AsyncIterator[tuple[Mirror, list[int]]]:
    """The mirror, and how many objects it held at each change."""
    changes: list[int] = []
    mirror = Mirror(cluster, SLICES, lambda: changes.append(len(mirror.objects)))
    task = asyncio.create_task(mirror.run())
    await asyncio.sleep(1)
    try:
        yield mirror, changes
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_each_change_is_told() -> None:
    async def play() -> None:
        cluster = FakeCluster()
        cluster.add(a_slice("v1", PORTS))
        async with mirroring(cluster) as (mirror, changes):
            cluster.add(a_slice("v2", PORTS))
            cluster.edit(Ref(kinds.ENDPOINT_SLICE, NAMESPACE, "v2-0"), lambda live: live.update(addressType="IPv6"))
            cluster.remove(Ref(kinds.ENDPOINT_SLICE, NAMESPACE, "v1-0"))
            await asyncio.sleep(1)
            assert set(mirror.objects) == {"v2-0"}
            assert mirror.objects["v2-0"]["addressType"] == "IPv6"
            assert changes == [1, 2, 2, 1]

    simulated_time.run(play())


def test_a_watch_that_ends_is_taken_up_where_it_ended() -> None:
    async def play() -> None:
        cluster = FakeCluster()
        async with mirroring(cluster) as (mirror, changes):
            cluster.watches.end_all()
            cluster.add(a_slice("v1", PORTS))
            await asyncio.sleep(2)
            assert set(mirror.objects) == {"v1-0"}
            assert changes == [0, 1]  # listed once
            assert cluster.watches.started == 2

    simulated_time.run(play())


def test_when_the_server_has_forgotten_everything_is_listed_again() -> None:
    async def play() -> None:
        cluster = FakeCluster()
        cluster.add(a_slice("v1", PORTS))
        async with mirroring(cluster) as (mirror, _):
            cluster.watches.set_down(errors.Unreachable("gone"))
            await asyncio.sleep(5)
            cluster.remove(Ref(kinds.ENDPOINT_SLICE, NAMESPACE, "v1-0"))
            cluster.add(a_slice("v2", PORTS))
            cluster.watches.forget()
            cluster.watches.set_down(None)
            await asyncio.sleep(20)
            assert set(mirror.objects) == {"v2-0"}

    simulated_time.run(play())


def test_while_the_server_is_gone_what_is_known_stays_and_it_is_asked_with_patience() -> None:
    async def play() -> None:
        cluster = FakeCluster()
        cluster.add(a_slice("v1", PORTS))
        async with mirroring(cluster) as (mirror, _):
            cluster.watches.set_down(errors.Unreachable("gone"))
            before = cluster.watches.refused
            await asyncio.sleep(600)
            asked = cluster.watches.refused - before
            assert (set(mirror.objects), mirror.problem) == ({"v1-0"}, "gone")
            assert 60 <= asked <= 140
            cluster.watches.set_down(None)
            await asyncio.sleep(20)
            assert mirror.problem == ""

    simulated_time.run(play())


def test_a_server_that_ends_each_watch_at_once_is_not_hammered() -> None:
    async def play() -> None:
        cluster = FakeCluster()

        async def end_them() -> None:
            while True:
                cluster.watches.end_all()
                await asyncio.sleep(0.01)

        ending = asyncio.create_task(end_them())
        async with mirroring(cluster):
            await asyncio.sleep(60)
        ending.cancel()
        assert cluster.watches.started < 400

    simulated_time.run(play())


def test_nothing_is_known_before_the_first_list() -> None:
    async def play() -> None:
        cluster = FakeCluster()
        cluster.watches.set_down(errors.Forbidden("may not list"))
        async with mirroring(cluster) as (mirror, changes):
            assert (mirror.listed, mirror.problem, changes) == (False, "may not list", [])

    simulated_time.run(play())
