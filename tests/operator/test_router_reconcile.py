"""An operator upgrade brings a new image of the routers: who renews its pods when, with many namespaces and as many workers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fake_cluster import FakeCluster
from moorage_operator import errors
from moorage_operator.core import routing
from moorage_operator.core.kinds import BY_NAME, DEPLOYMENT, MODEL_DEPLOYMENT, Manifest, Ref
from moorage_operator.core.names import RouterKey
from moorage_operator.core.platform import RouterSettings
from moorage_operator.index import Index
from moorage_operator.retakes import Retakes
from moorage_operator.router_reconcile import ROLL_AGAIN_SECONDS, RouterReconciler

NAMESPACES = [f"team-{number}" for number in range(8)]
OLD, NEW = RouterSettings("moorage/operator:1"), RouterSettings("moorage/operator:2")
GAVE_UP = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}


class FarCluster(FakeCluster):
    """Others have their turn while a request is under way, and again while its answer is."""

    async def apply(self, manifest: Manifest, **more: Any) -> Manifest:
        await asyncio.sleep(0)
        answer = await super().apply(manifest, **more)
        await asyncio.sleep(0)
        return answer


class Teams:
    """Each has a namespace with a ModelDeployment behind a router. Watch events of Deployments come only when they are let."""

    def __init__(self) -> None:
        self.cluster, self.index = FarCluster(), Index()
        self.operator(OLD)
        for namespace in NAMESPACES:
            metadata = {"name": "fraud", "namespace": namespace}
            spec = {"model": {"name": "detector", "alias": "champion"}}
            stored = self.cluster.add(
                {"apiVersion": MODEL_DEPLOYMENT.api_version, "kind": MODEL_DEPLOYMENT.name}
                | {"metadata": metadata, "spec": spec}
            )
            self.index.put(MODEL_DEPLOYMENT, stored)

    def operator(self, settings: RouterSettings) -> None:
        self.reconciler = RouterReconciler(
            cluster=self.cluster,
            index=self.index,
            settings=settings,
            retakes=Retakes(self.cluster),
            wake=lambda key: None,
        )

    async def all_at_once(self) -> list[float | None]:
        return await asyncio.gather(*(self.reconciler.reconcile(RouterKey(namespace)) for namespace in NAMESPACES))

    def router(self, namespace: str) -> Manifest:
        return self.cluster._objects[Ref(DEPLOYMENT, namespace, routing.NAME)]

    def renewed(self) -> list[str]:
        """Namespaces whose router has the new template."""
        images = {name: self.router(name)["spec"]["template"]["spec"]["containers"][0]["image"] for name in NAMESPACES}
        return [name for name, image in images.items() if image == NEW.image]

    def report(self, namespace: str, *, updated: int = 2, extra: int = 0, available: int = 2, **more: Any) -> None:
        """What the Deployment's controller says; it has seen the Deployment as it is."""
        generation = self.router(namespace)["metadata"]["generation"]
        status = {"observedGeneration": generation, "replicas": updated + extra, "updatedReplicas": updated}
        status |= {"availableReplicas": available} | more
        stored = self.cluster.edit(
            Ref(DEPLOYMENT, namespace, routing.NAME),
            lambda manifest: manifest.update(status=status),
            manager="kcm",
            subresource="status",
        )
        self.index.put(BY_NAME["apps/v1", "Deployment"], stored)


@pytest.fixture
async def teams() -> Teams:
    """All routers run, and the operator has just been upgraded."""
    found = Teams()
    await found.all_at_once()
    for namespace in NAMESPACES:
        found.report(namespace)
    found.operator(NEW)
    return found


async def test_routers_are_renewed_one_namespace_after_the_other(teams: Teams) -> None:
    done: list[str] = []
    for _ in NAMESPACES:
        again = await teams.all_at_once()
        (rolling,) = set(teams.renewed()) - set(done)
        assert again.count(ROLL_AGAIN_SECONDS) == len(NAMESPACES) - len(done) - 1
        await teams.all_at_once()
        assert set(teams.renewed()) == {*done, rolling}, "nobody begins before it is done"
        teams.report(rolling)
        done.append(rolling)

    assert await teams.all_at_once() == [None] * len(NAMESPACES)


async def test_what_was_said_of_the_old_template_is_no_end_of_the_roll(teams: Teams) -> None:
    """The answer to the write has the status from before: all available, or given up at the last upgrade."""
    for namespace in NAMESPACES:
        teams.report(namespace, conditions=[GAVE_UP])
    for _ in range(3):
        await teams.all_at_once()

    assert len(teams.renewed()) == 1


async def test_a_roll_has_ended_when_its_last_new_pod_is_available_and_not_when_it_exists(teams: Teams) -> None:
    await teams.all_at_once()
    (rolling,) = teams.renewed()
    for updated, extra, available in ((1, 2, 2), (1, 1, 2), (2, 1, 2)):
        teams.report(rolling, updated=updated, extra=extra, available=available)
        await teams.all_at_once()
        assert teams.renewed() == [rolling]
    teams.report(rolling, updated=2, extra=0, available=2)
    await teams.all_at_once()

    assert len(teams.renewed()) == 2


async def test_a_router_that_cannot_be_renewed_holds_up_nobody(teams: Teams) -> None:
    await teams.all_at_once()
    teams.report(teams.renewed()[0], updated=1, extra=2, available=2, conditions=[GAVE_UP])
    await teams.all_at_once()

    assert len(teams.renewed()) == 2


async def test_a_write_that_fails_gives_the_turn_to_the_next(teams: Teams) -> None:
    def refuse(verb: str, ref: Ref) -> None:
        if ref == Ref(DEPLOYMENT, NAMESPACES[0], routing.NAME):
            raise errors.Forbidden("a webhook does not like it")

    teams.cluster.before_write = refuse
    with pytest.raises(errors.Forbidden):
        await teams.reconciler.reconcile(RouterKey(NAMESPACES[0]))
    await teams.reconciler.reconcile(RouterKey(NAMESPACES[1]))

    assert teams.renewed() == [NAMESPACES[1]]
