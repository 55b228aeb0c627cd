"""The running operator: index, queue, pollers and reconciler joined to events, ticks and resyncs.

It is handed its adapters (`__main__` makes them), so that tests run this very code on the in-memory ones.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator, Mapping

from moorage_operator import errors, ports
from moorage_operator.core import names
from moorage_operator.core.kinds import MODEL_DEPLOYMENT, POD, Kind, Manifest
from moorage_operator.core.names import Key, RouterKey
from moorage_operator.handlers import WATCHED
from moorage_operator.http_routes import HttpRoutes
from moorage_operator.index import AnyKey, Index
from moorage_operator.meter import Meter
from moorage_operator.pollers import Pollers
from moorage_operator.reconcile import Reconciler
from moorage_operator.retakes import Retakes
from moorage_operator.router_reconcile import RouterReconciler
from moorage_operator.routers import Routers
from moorage_operator.settings import Settings
from moorage_operator.telemetry import Metrics
from moorage_operator.tellers import Tellers
from moorage_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

STUCK_SECONDS = 120
"""Keys that wait, of which none has been taken for so long, mean that the workers do not work."""

FIRST_RESYNC_SECONDS = 5.0
"""Between two attempts."""

WAKE_SECONDS = 5.0

RESYNC_SPREAD = 0.1
"""Of the time between two resyncs: a thousand keys at once would hold up the one that somebody has just changed."""


class Controller:
    """Feed it events; let it lead; it does the rest."""

    def __init__(
        self,
        *,
        cluster: ports.Cluster,
        registries: Mapping[str, ports.Registry],
        agents: ports.Agents,
        runtimes: ports.Runtimes,
        prometheus: ports.Prometheus,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._metrics = metrics
        self._leading = False
        self._shown: dict[Key, set[tuple[str, ...]]] = {}
        self.index = Index()
        self.queue: WorkQueue[AnyKey] = WorkQueue(group=lambda key: key.namespace)
        self._pollers = Pollers(
            registries,
            index=self.index,
            enqueue=self.queue.add,
            interval=settings.registry_poll_seconds,
            observe=lambda name, seconds, outcome: metrics.registry_seconds.labels(name, outcome).observe(seconds),
        )
        self._routers = Routers(agents, index=self.index, wake=self.queue.add)
        self._meter = Meter(
            agents=agents, runtimes=runtimes, prometheus=prometheus, index=self.index, wake=self.queue.add
        )
        self._http_routes = HttpRoutes(cluster, index=self.index, namespaces=settings.namespaces, wake=self.queue.add)
        self._tellers = Tellers(registries, wake=self.queue.add)
        retakes = Retakes(cluster)
        self._reconciler = Reconciler(
            cluster=cluster,
            index=self.index,
            answers=self._pollers,
            routers=self._routers,
            meter=self._meter,
            errands=self._tellers,
            retakes=retakes,
            platform=settings.platform(),
        )
        self._router_reconciler = RouterReconciler(
            cluster=cluster,
            index=self.index,
            settings=settings.router_settings(),
            retakes=retakes,
            wake=self.queue.add,
        )
        metrics.queue_depth.set_function(lambda: self.queue.depth)
        metrics.queue_oldest.set_function(lambda: self.queue.oldest_seconds)
        metrics.objects.set_function(lambda: len(self.index))
        metrics.leader.set_function(lambda: self._leading)

    def feed(self, kind: Kind, event: str, manifest: Manifest) -> None:
        """One watch event."""
        key = self.index.remove(kind, manifest) if event == "DELETED" else self.index.put(kind, manifest)
        if key:
            self.queue.add(key)
        if kind is MODEL_DEPLOYMENT and key:
            self.queue.add(RouterKey(key.namespace))
        if isinstance(key, RouterKey) and kind is POD:
            self._routers.look(key.namespace)

    async def lead(self) -> None:
        """Work until cancelled. A standby does not call this; its index stays warm all the same."""
        await self._first_resync()
        for key in self._all_keys():
            self.queue.add(key)
        self._leading = True
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pollers.run(), name="pollers")
            tasks.create_task(self._routers.run(), name="routers")
            tasks.create_task(self._meter.run(), name="meter")
            tasks.create_task(self._tellers.run(), name="tellers")
            tasks.create_task(self._http_routes.run(), name="HTTPRoutes")
            tasks.create_task(self._keep_in_sync(), name="resync")
            tasks.create_task(
                self.queue.run(self._settings.workers, self._reconcile, failed=self._failed), name="workers"
            )

    def wake_all(self) -> None:
        """Rather soon, after a time without the API server: the delay of one that kept failing may be two minutes by now."""
        for key in self._all_keys():
            self.queue.add_after(key, random.uniform(0, WAKE_SECONDS))  # noqa: S311 - no secret

    def problem(self) -> str:
        """What a liveness probe should know, as a sentence; empty when the workers work."""
        stuck = self.queue.stuck_seconds
        if self._leading and stuck > STUCK_SECONDS:
            return f"no key in the queue has been worked on for {stuck:.0f} s"
        return ""

    async def _reconcile(self, key: AnyKey) -> None:
        with self._metrics.reconcile_seconds.time():
            if isinstance(key, RouterKey):
                again = await self._router_reconciler.reconcile(key)
                self._routers.problems.pop(key.namespace, None)
            else:
                again = await self._reconciler.reconcile(key)
                self._show_roles(key)
        self._metrics.reconciles.labels("ok").inc()
        if again is not None:
            # A little late: the clock of the next pass has whole seconds and must be past the moment.
            self.queue.add_after(key, max(again, 0) + 1)

    def _show_roles(self, key: Key) -> None:
        """`moorage_revision_info`: which revision has which role, for joining with the runtimes' own metrics."""
        manifest = self.index.model_deployment(key) or {}
        status = manifest.get("status", {})
        roles = {track: status[track] for track in ("stable", "canary") if track in status}
        now: set[tuple[str, ...]] = {
            (key.namespace, key.name, role["revision"], role.get("modelVersion", ""), track)
            for track, role in roles.items()
        }
        for gone in self._shown.pop(key, set()) - now:
            self._metrics.revisions.remove(*gone)
        for labels in now:
            self._metrics.revisions.labels(*labels).set(1)
        if now:
            self._shown[key] = now

    def _all_keys(self) -> Iterator[AnyKey]:
        known = [key for key, _ in self.index.model_deployments()]
        yield from known
        yield from {RouterKey(key.namespace) for key in known}

    def _failed(self, key: AnyKey, error: Exception) -> float:
        """Say it once in the log, with what helps; returns the least seconds to wait."""
        if isinstance(key, RouterKey) and isinstance(error, errors.Invalid | errors.Forbidden):
            self._routers.problems[key.namespace] = f"the namespace's router can't be made: {error}"
        self._metrics.reconciles.labels(type(error).__name__).inc()
        if isinstance(error, errors.Conflict):
            log.info("%s: %s; trying again", key, error)
        elif isinstance(error, errors.OperatorError | TimeoutError):
            log.warning("%s: %s; trying again", key, error or type(error).__name__)
        else:
            log.error("%s: a bug in the operator; trying again", key, exc_info=error)
        return error.retry_after if isinstance(error, errors.Throttled) else 0.0

    async def _first_resync(self) -> None:
        """A new process would be told the same: it waits here until everything can be listed."""
        while True:
            try:
                return await self._resync()
            except errors.ClusterError as error:
                log.warning("nothing is done until everything has been listed: %s", error)
                await asyncio.sleep(FIRST_RESYNC_SECONDS)

    async def _keep_in_sync(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_seconds * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            try:
                await self._resync()
            except errors.ClusterError as error:
                log.warning("the resync failed, the next one comes in its time: %s", error)
                continue
            spread = RESYNC_SPREAD * self._settings.resync_seconds
            self._router_reconciler.forget()
            for key in self._all_keys():
                self.queue.add_after(key, random.uniform(0, spread))  # noqa: S311 - no secret

    async def _resync(self) -> None:
        """A live, paginated LIST of everything: an event that never came is made good here."""
        ghosts = await self._http_routes.relist()
        for kind in WATCHED:
            for namespace in self._settings.namespaces or ("",):
                before = {ref for ref in self.index.refs(kind) if not namespace or ref.namespace == namespace}
                labels = None if kind is WATCHED[0] else names.MANAGED
                live = self._cluster.list(kind, namespace=namespace, labels=labels)
                ghosts += await self.index.replace(kind, live, before=before)
        if ghosts:
            log.info("the resync found %d objects gone without an event", ghosts)
            self._metrics.resync_repairs.inc(ghosts)
