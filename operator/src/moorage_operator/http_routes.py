"""The HTTPRoutes of ours, in the index. kopf would never watch a kind that the cluster gets later, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from moorage_operator import errors, ports
from moorage_operator.core import names
from moorage_operator.core.kinds import HTTP_ROUTE, Ref, ref_of
from moorage_operator.index import AnyKey, Index
from moorage_operator.mirror import Mirror

log = logging.getLogger(__name__)

AGAIN_SECONDS = 60.0
"""How soon to ask again whether the cluster has the Gateway API."""


class HttpRoutes:
    """`wake` is called with each ModelDeployment whose route has changed."""

    def __init__(
        self, cluster: ports.Cluster, *, index: Index, namespaces: Sequence[str], wake: Callable[[AnyKey], None]
    ) -> None:
        self._cluster = cluster
        self._index = index
        self._namespaces = namespaces or ("",)
        self._wake = wake
        self._seen: dict[str, set[Ref]] = {}

    async def relist(self) -> int:
        """A live LIST. Returns how many were gone without an event; none, where there is no Gateway API or no right to it."""
        ghosts = 0
        for namespace in self._namespaces:
            before = {ref for ref in self._index.refs(HTTP_ROUTE) if not namespace or ref.namespace == namespace}
            live = self._cluster.list(HTTP_ROUTE, namespace=namespace, labels=names.MANAGED)
            try:
                ghosts += await self._index.replace(HTTP_ROUTE, live, before=before)
            except (errors.Invalid, errors.Forbidden):
                self._index.forget(before)
        return ghosts

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for namespace in self._namespaces:
                tasks.create_task(self._follow(namespace), name=f"HTTPRoutes {namespace}")

    async def _follow(self, namespace: str) -> None:
        selection = ports.Selection(HTTP_ROUTE, namespace, labels=names.MANAGED)
        told = False
        while refusal := await self._refusal(selection):
            if not told:
                log.info("no HTTPRoute is followed until there is a Gateway API: %s", refusal)
            told = True
            await asyncio.sleep(AGAIN_SECONDS)
        mirror = Mirror(self._cluster, selection, lambda: self._take(namespace, mirror))
        await mirror.run()

    async def _refusal(self, selection: ports.Selection) -> str:
        """Why there is nothing to follow; empty if there is. A server that does not answer is the mirror's affair."""
        with contextlib.suppress(errors.ClusterError):
            try:
                await self._cluster.snapshot(selection)
            except (errors.Invalid, errors.Forbidden) as error:
                return str(error)
        return ""

    def _take(self, namespace: str, mirror: Mirror) -> None:
        """What the mirror never had is not gone: the index may have our own write before the watch tells of it."""
        live = {ref_of(manifest): manifest for manifest in mirror.objects.values()}
        for ref in self._seen.get(namespace, set()) - live.keys():
            known = self._index.object(ref)
            key = self._index.remove(HTTP_ROUTE, known) if known else None
            if key:
                self._wake(key)
        for ref, manifest in live.items():
            known = self._index.object(ref)
            key = self._index.put(HTTP_ROUTE, manifest)
            if key and self._index.object(ref) is not known:
                self._wake(key)
        self._seen[namespace] = set(live)
