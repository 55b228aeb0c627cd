"""`ports.Cluster` on a real API server. Decides nothing: it asks, writes, and says what the server said."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from moorage_operator import errors
from moorage_operator.adapters.cluster import configuration, transport, watch
from moorage_operator.adapters.cluster.budget import Budget
from moorage_operator.core import kinds, names
from moorage_operator.core.kinds import Kind, Manifest, Ref
from moorage_operator.ports import Change, Selection, Snapshot

AGAIN_SECONDS = (0.05, 0.1, 0.2, 0.4)
"""Before each next try of a call that failed, at most: behind a load balancer one of the API servers may be down, and a pass that
moves traffic reads ten times, and writes then."""

QUICK_SECONDS = 1.0
"""What takes longer to fail is not repeated here: the server is busy."""


def _open_fence() -> None:
    """Every write passes."""


def _unobserved(verb: str, resource: str, code: str) -> None:
    """Nobody counts."""


@contextlib.asynccontextmanager
async def connect(
    kubeconfig: str = "",
    *,
    fence: Callable[[], None] = _open_fence,
    observe: transport.Observe = _unobserved,
    writes_per_second: float = 500,
    write_burst: int = 1000,
    timeout_seconds: float = 30,
    connect_seconds: float = 5,
    page_size: int = 100,
    watch_seconds: float = 60,
) -> AsyncIterator[KubernetesCluster]:
    """One connection pool, for the event loop that this runs in. `fence` raises when no write may be made any more."""
    access = await configuration.load(kubeconfig)
    calls = transport.Transport(
        access, timeout_seconds=timeout_seconds, connect_seconds=connect_seconds, observe=observe
    )
    try:
        yield KubernetesCluster(calls, fence, Budget(writes_per_second, write_burst), page_size, watch_seconds)
    finally:
        await calls.close()


class KubernetesCluster:
    """See `ports.Cluster`; 404 on a delete is success, on any other write `Invalid`."""

    def __init__(
        self,
        calls: transport.Transport,
        fence: Callable[[], None],
        budget: Budget,
        page_size: int,
        watch_seconds: float,
    ) -> None:
        self._calls = calls
        self._fence = fence
        self._budget = budget
        self._page_size = page_size
        self._watch_seconds = watch_seconds

    async def get(self, ref: Ref) -> Manifest | None:
        return await self._unless_gone(_call("get", ref, "GET", _object_path(ref)))

    async def list(
        self, kind: Kind, *, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[Manifest]:
        query = {"limit": str(self._page_size)}
        if labels:
            query["labelSelector"] = ",".join(f"{key}={value}" for key, value in labels.items())
        path = _collection_path(kind, namespace)
        try:
            async for item in self._pages(kind, path, query):
                yield item
        except errors.Invalid as error:
            if error.status != HTTPStatus.GONE:
                raise
            # The snapshot behind the pages was compacted while we read: one request for all, as client-go does.
            async for item in self._pages(kind, path, query | {"limit": "0"}):
                yield item

    async def snapshot(self, selection: Selection) -> Snapshot:
        answer = await self._send(watch.listing(selection, _collection_path(selection.kind, selection.namespace)))
        return watch.snapshot(selection, answer)

    async def follow(self, selection: Selection, *, since: str) -> AsyncIterator[Change]:
        path = _collection_path(selection.kind, selection.namespace)
        call = watch.following(selection, path, since, seconds=self._watch_seconds)
        # Of a connection that is only half open nothing is ever heard: after its time the server would have ended the watch.
        lines = self._calls.stream(call, timeout_seconds=self._watch_seconds * 1.25)
        try:
            async with contextlib.aclosing(lines):
                async for line in lines:
                    yield watch.change(call, line)
        except errors.Forbidden as error:
            if error.status == HTTPStatus.UNAUTHORIZED:
                await self._calls.refresh_credentials()  # for the next one
            raise

    async def apply(self, manifest: Manifest, *, manager: str = names.FIELD_MANAGER, subresource: str = "") -> Manifest:
        ref = kinds.ref_of(manifest)
        path = _object_path(ref) + (f"/{subresource}" if subresource else "") + f"?fieldManager={manager}&force=true"
        call = _call("apply", ref, "PATCH", path, content_type=transport.APPLY, body=manifest, writes=True)
        return _manifest(await self._send(call))

    async def create(self, manifest: Manifest) -> Manifest:
        ref = kinds.ref_of(manifest)
        path = _collection_path(ref.kind, ref.namespace) + f"?fieldManager={names.FIELD_MANAGER}"
        call = _call("create", ref, "POST", path, body=manifest, writes=True)
        return _manifest(await self._send(call))

    async def patch(self, ref: Ref, operations: Sequence[Mapping[str, Any]]) -> Manifest:
        path = _object_path(ref) + f"?fieldManager={names.FIELD_MANAGER}"
        body = [dict(operation) for operation in operations]
        call = _call("patch", ref, "PATCH", path, content_type=transport.JSON_PATCH, body=body, writes=True)
        return _manifest(await self._send(call))

    async def delete(self, ref: Ref, *, uid: str, resource_version: str) -> None:
        version = {"resourceVersion": resource_version} if resource_version else {}
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid} | version}
        await self._unless_gone(_call("delete", ref, "DELETE", _object_path(ref), body=body, writes=True))

    async def _pages(self, kind: Kind, path: str, query: dict[str, str]) -> AsyncIterator[Manifest]:
        token = ""
        while True:
            page = query | ({"continue": token} if token else {})
            call = transport.Call("list", kind, "", "GET", f"{path}?{urllib.parse.urlencode(page)}")
            answer = await self._send(call)
            for item in answer.get("items") or []:
                yield {"apiVersion": kind.api_version, "kind": kind.name, **item}
            token = answer["metadata"].get("continue", "")
            if not token:
                return

    async def _unless_gone(self, call: transport.Call) -> Manifest | None:
        try:
            return _manifest(await self._send(call))
        except errors.Invalid as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def _send(self, call: transport.Call) -> Any:
        try:
            return await self._send_patiently(call)
        except errors.Forbidden as error:
            if error.status != HTTPStatus.UNAUTHORIZED:
                raise
            # The server did nothing yet: perhaps the token was rotated early.
            await self._calls.refresh_credentials()
            return await self._send_once(call)

    async def _send_patiently(self, call: transport.Call) -> Any:
        """A write may have been done although its answer got lost: done twice it is the same, or a conflict with itself."""
        begin = time.monotonic()
        for pause in AGAIN_SECONDS:
            try:
                return await self._send_once(call)
            except errors.Unreachable:
                if time.monotonic() - begin > QUICK_SECONDS:
                    raise
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
        return await self._send_once(call)

    async def _send_once(self, call: transport.Call) -> Any:
        if call.writes:
            await self._budget.take()
            self._fence()
        return await self._calls.send(call)


def _call(verb: str, ref: Ref, method: str, path: str, **options: Any) -> transport.Call:
    return transport.Call(verb, ref.kind, str(ref), method, path, **options)


def _collection_path(kind: Kind, namespace: str) -> str:
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    scope = f"/namespaces/{_quote(namespace)}" if namespace else ""
    return f"{root}{scope}/{kind.plural}"


def _object_path(ref: Ref) -> str:
    return f"{_collection_path(ref.kind, ref.namespace)}/{_quote(ref.name)}"


def _quote(segment: str) -> str:
    return urllib.parse.quote(segment, safe="")


def _manifest(answer: Any) -> Manifest:
    return dict(answer)
