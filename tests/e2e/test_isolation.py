"""What the API server holds up or refuses in one namespace is noticed in no other: from a changed spec to its Deployment it takes as long.

The same with throttling and conflicts is in tests/operator/test_isolation.py.
"""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import audit
import webhooks
from fixtures_cluster import Api
from installation import Installation
from moorage_operator.adapters import cluster
from moorage_operator.core.kinds import DEPLOYMENT, MODEL_DEPLOYMENT, Ref
from moorage_operator.ports import Selection
from place import Object, Place, a_model, a_namespace, until

CALM = [f"calm-{number}" for number in range(4)]
NOWHERE = {"nodeSelector": {"no": "node"}}
"""Pods of nobody's: only what the operator writes is looked at."""
WEBHOOK_SECONDS = 9.0
HELD_UP_SECONDS = 2.0
"""How late the operator may be while it finds out who is slow, half a second, and what a busy machine adds."""

COUNTS = [(12, 40), pytest.param(48, 300, marks=pytest.mark.long)]
"""How many ModelDeployments are in trouble, and how many changes of others are timed."""


@pytest.fixture(scope="module")
def calm(place: Place) -> Place:
    place.apply(*(a_model(name, pod=NOWHERE) for name in CALM))
    for name in CALM:
        place.wait_for_reason(name, "Unschedulable")
    return place


@pytest.fixture
def troubled(api: Api, calm: Place) -> Iterator[Place]:
    with a_namespace(api, f"moorage-e2e-{uuid.uuid4().hex[:6]}") as found:
        yield found


def begin_trouble(troubled: Place, count: int) -> None:
    troubled.apply(*(a_model(f"troubled-{number}", pod=NOWHERE) for number in range(count)))


def deployments(place: Place) -> list[Object]:
    return place.find("deployments", "moorage.dev/deployment")


class Stopwatch:
    """Sees each Deployment as soon as the API server tells of it."""

    def __init__(self, client: cluster.KubernetesCluster, place: Place) -> None:
        self._client = client
        self._place = place
        self._replicas: dict[str, int] = {}
        self._changed = asyncio.Event()

    async def follow(self) -> None:
        selection = Selection(DEPLOYMENT, self._place.name, labels={"app.kubernetes.io/managed-by": "moorage"})
        while True:
            found = await self._client.snapshot(selection)
            for item in found.objects:
                self._see(item)
            async for change in self._client.follow(selection, since=found.resource_version):
                if change.happening != "BOOKMARK":
                    self._see(change.manifest)

    def _see(self, manifest: Object) -> None:
        name = manifest["metadata"]["labels"].get("moorage.dev/deployment", "")
        self._replicas[name] = manifest["spec"]["replicas"]
        self._changed.set()

    async def change(self, name: str) -> float:
        """Seconds from before the spec is changed until its Deployment is."""
        wanted = 3 - self._replicas[name]
        begin = time.monotonic()
        operation = {"op": "add", "path": "/spec/replicas", "value": wanted}
        await self._client.patch(Ref(MODEL_DEPLOYMENT, self._place.name, name), [operation])
        async with asyncio.timeout(60):
            while self._replicas[name] != wanted:
                self._changed.clear()
                await self._changed.wait()
        return time.monotonic() - begin

    async def ready(self) -> None:
        async with asyncio.timeout(30):
            while not set(CALM) <= self._replicas.keys():
                await asyncio.sleep(0.1)


@asynccontextmanager
async def a_stopwatch(place: Place) -> AsyncIterator[Stopwatch]:
    async with cluster.connect(place.api.kubeconfig) as client:
        watch = Stopwatch(client, place)
        following = asyncio.create_task(watch.follow())
        try:
            await watch.ready()
            yield watch
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


def timed(place: Place, times: int) -> list[float]:
    """So many changes, one after the other, of one ModelDeployment after the other; some a second."""

    async def play() -> list[float]:
        found = []
        async with a_stopwatch(place) as watch:
            for number in range(times):
                found.append(await watch.change(CALM[number % len(CALM)]))
                await asyncio.sleep(0.15)
        return found

    return asyncio.run(play())


def p50_and_p99(seconds: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return round(cuts[49], 3), round(cuts[98], 3)


@pytest.mark.parametrize(("count", "times"), COUNTS)
def test_writes_that_a_webhook_holds_up_for_9_s_are_waited_for_by_nobody_else(
    operator: Installation, calm: Place, troubled: Place, tmp_path: Path, count: int, times: int
) -> None:
    before = p50_and_p99(timed(calm, times))
    user = audit.service_account(operator.namespace)
    with webhooks.slow(troubled, tmp_path, seconds=WEBHOOK_SECONDS, user=user):
        begin = time.monotonic()
        begin_trouble(troubled, count)
        during = p50_and_p99(timed(calm, times))
        until(90, "each of them has its Deployment", lambda: len(deployments(troubled)) == count)
        last = time.monotonic() - begin

    print(f"without {before}, with {count} slow ones {during}, which had their Deployments after {last:.0f} s")  # noqa: T201
    assert during[0] <= 1.2 * before[0] + 0.2
    assert during[1] <= 1.2 * before[1] + HELD_UP_SECONDS


@pytest.mark.parametrize(("count", "times"), COUNTS)
def test_writes_that_a_quota_refuses_disturb_nobody_else_and_are_tried_more_and_more_seldom(
    api: Api, operator: Installation, calm: Place, troubled: Place, count: int, times: int
) -> None:
    before = p50_and_p99(timed(calm, times))
    hard = {"count/deployments.apps": "0"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": hard}}
    troubled.apply(quota)
    until(30, "it is enforced", lambda: troubled.get("resourcequota", "none").get("status", {}).get("hard"))
    begin_trouble(troubled, count)
    since = audit.now()
    began = time.monotonic()
    during = p50_and_p99(timed(calm, times))
    seconds = time.monotonic() - began

    told = troubled.wait_for_reason("troubled-0", "ChildRefused", kind="RuntimeAvailable", seconds=30)
    assert "exceeded quota" in told["message"]
    refused = [
        item
        for item in audit.requests(api, audit.service_account(operator.namespace), since)
        if item.namespace == troubled.name and item.code == 403
    ]
    print(f"without {before}, with {count} refused ones {during}; {len(refused)} refused in {seconds:.0f} s")  # noqa: T201
    assert during[0] <= 1.2 * before[0] + 0.2
    assert during[1] <= 1.2 * before[1] + HELD_UP_SECONDS
    assert len(refused) / count < 25, "of each, whatever happens elsewhere"
    troubled.delete("resourcequota", "none")
    until(150, "each of them has its Deployment", lambda: len(deployments(troubled)) == count)
