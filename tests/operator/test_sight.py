"""An operator that may not see what it works on says so, stays, and makes good when it may again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

import simulated_time
from a_controller import FRAUD, a_controller
from fake_cluster import FakeCluster
from moorage_operator import errors, sight
from moorage_operator.core import names
from moorage_operator.core.kinds import DEPLOYMENT, MODEL_DEPLOYMENT, Ref
from moorage_operator.sight import Sight
from moorage_operator.telemetry import Metrics

FORBIDDEN = errors.Forbidden("list deployments: the user may not", status=403)
OUTAGE_SECONDS = 600.0
RECOVERY_SECONDS = 60.0


@contextlib.asynccontextmanager
async def looking(cluster: FakeCluster) -> AsyncIterator[tuple[Sight, list[float]]]:
    """And the moments at which it told that it sees again."""
    restored: list[float] = []
    found = Sight(cluster, namespaces=(), restored=lambda: restored.append(asyncio.get_running_loop().time()))
    running = asyncio.create_task(found.run())
    yield found, restored
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_it_tells_within_a_minute_what_it_may_not_list_and_that_it_may_again(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        cluster = FakeCluster()
        async with looking(cluster) as (found, restored):
            await asyncio.sleep(100)
            assert found.problem == ""
            cluster.watches.set_down(FORBIDDEN)
            await asyncio.sleep(sight.LOOK_SECONDS)
            assert found.problem.endswith(": list deployments: the user may not")
            await asyncio.sleep(OUTAGE_SECONDS)
            assert not restored
            cluster.watches.set_down(None)
            begin = asyncio.get_running_loop().time()
            await asyncio.sleep(OUTAGE_SECONDS)
            assert found.problem == ""
            assert [moment - begin for moment in restored] == [pytest.approx(sight.AGAIN_SECONDS, abs=5)]

    simulated_time.run(play())
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"], "each is said once"


class Revoked(FakeCluster):
    """Its rights are taken away and given back: `watches.down` is what each write and list is told."""

    def __init__(self) -> None:
        super().__init__()
        self.before_write = lambda verb, ref: self.watches.check()


async def replicas(cluster: FakeCluster) -> int:
    [made] = [item async for item in cluster.list(DEPLOYMENT, labels=names.MANAGED)]
    return int(made["spec"]["replicas"])


def test_what_was_asked_without_rights_is_done_within_a_minute_of_their_return() -> None:
    async def play() -> None:
        cluster = Revoked()
        controller = a_controller(cluster, Metrics())
        cluster.add(FRAUD)
        leading = asyncio.create_task(controller.lead())
        running = asyncio.create_task(Sight(cluster, namespaces=(), restored=controller.wake_all).run())
        await asyncio.sleep(20)
        cluster.watches.set_down(FORBIDDEN)
        cluster.edit(Ref(MODEL_DEPLOYMENT, "payments", "fraud"), lambda manifest: manifest["spec"].update(replicas=3))
        await asyncio.sleep(OUTAGE_SECONDS)
        assert not leading.done()
        assert controller.problem() == ""
        cluster.watches.set_down(None)
        assert await replicas(cluster) == 1
        await asyncio.sleep(2 * sight.AGAIN_SECONDS + 1)
        assert await replicas(cluster) == 3
        await end(leading, running)

    simulated_time.run(play())


def test_one_that_starts_without_rights_waits_for_them() -> None:
    async def play() -> None:
        cluster = Revoked()
        controller = a_controller(cluster, Metrics())
        cluster.add(FRAUD)
        cluster.watches.set_down(FORBIDDEN)
        leading = asyncio.create_task(controller.lead())
        await asyncio.sleep(OUTAGE_SECONDS)
        assert not leading.done()
        cluster.watches.set_down(None)
        await asyncio.sleep(RECOVERY_SECONDS)
        assert await replicas(cluster) == 1
        await end(leading)

    simulated_time.run(play())


async def end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
