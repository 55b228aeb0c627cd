"""An API server that knows how to list and to watch what the operator watches, and to end watches as a test wants it."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

from aiohttp import web

from moorage_operator.core.kinds import CRD, MODEL_DEPLOYMENT, Kind, Manifest
from moorage_operator.handlers import WATCHED

Event = dict[str, Any]

KNOWN = (*WATCHED, CRD, Kind("", "v1", "Namespace", "namespaces"), Kind("", "v1", "Event", "events"))
"""What is watched, and what kopf wants to be there."""

END: Event = {}
"""Ends a stream."""


class ApiServer:
    """Without permissions, and with ModelDeployments only. It forgets nothing when it stops."""

    def __init__(self) -> None:
        self.watched = 0
        """So many watches of ModelDeployments have begun."""
        self.token = "a-token"
        """Whoever has another one is refused."""
        self.certificate: tuple[Path, Path] | None = None
        """With its key: it then speaks TLS."""
        self._port = 0
        self._objects: list[Manifest] = []
        self._streams: set[asyncio.Queue[Event]] = set()
        self._silent: set[asyncio.Queue[Event]] = set()
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def kubeconfig(self) -> dict[str, Any]:
        return self.kubeconfig_with({})

    def kubeconfig_with(self, cluster: dict[str, Any]) -> dict[str, Any]:
        """`cluster` says more about this server, its authority for example."""
        scheme = "https" if self.certificate else "http"
        return {
            "current-context": "stub",
            "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "stub"}}],
            "clusters": [{"name": "stub", "cluster": cluster | {"server": f"{scheme}://127.0.0.1:{self._port}"}}],
            "users": [{"name": "stub", "user": {"token": self.token}}],
        }

    async def start(self) -> None:
        """At the same address each time."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls()).start()
        self._port = self._runner.addresses[0][1]

    def _tls(self) -> ssl.SSLContext | None:
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificate)
        return context

    async def stop(self) -> None:
        self.end_watches()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def create(self, name: str) -> None:
        version = len(self._objects) + 1
        metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": str(version)}
        made = {"apiVersion": MODEL_DEPLOYMENT.api_version, "kind": MODEL_DEPLOYMENT.name, "metadata": metadata}
        self._objects.append(made)
        for stream in self._streams - self._silent:
            stream.put_nowait(_added(made))

    def end_watches(self, last: Event | None = None) -> None:
        """With a last event, if there is one to say."""
        for stream in self._streams:
            for event in [last, END] if last else [END]:
                stream.put_nowait(event)
        self._streams.clear()

    def silence_watches(self) -> None:
        """Those that are there: they stay open, and nothing comes by them any more."""
        self._silent |= self._streams

    async def is_watched(self) -> None:
        while not self._streams:
            self._changed.clear()
            await self._changed.wait()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"kind": "Status", "message": "Unauthorized", "code": 401}, status=401)
        found = _discovered(request.path)
        if found is not None:
            return web.json_response(found)
        is_ours = request.path.endswith(f"/{MODEL_DEPLOYMENT.plural}")
        if "watch" in request.query:
            return await self._watch(request, int(request.query.get("resourceVersion", 0)), is_ours=is_ours)
        items = self._objects if is_ours else []
        return web.json_response({"metadata": {"resourceVersion": str(len(self._objects))}, "items": items})

    async def _watch(self, request: web.Request, since: int, *, is_ours: bool) -> web.StreamResponse:
        stream: asyncio.Queue[Event] = asyncio.Queue()
        answer = web.StreamResponse()
        await answer.prepare(request)
        if is_ours:
            for item in self._objects[since:]:
                stream.put_nowait(_added(item))
            self.watched += 1
            self._streams.add(stream)
            self._changed.set()
        try:
            while (event := await stream.get()) is not END:
                await answer.write(json.dumps(event).encode() + b"\n")
        finally:
            self._streams.discard(stream)
        return answer


def _added(manifest: Manifest) -> Event:
    return {"type": "ADDED", "object": manifest}


def _discovered(path: str) -> dict[str, Any] | None:
    """What there is to watch; None for a path that is no part of the discovery."""
    groups = {(kind.group, kind.version) for kind in KNOWN if kind.group}
    if path == "/api":
        return {"versions": ["v1"]}
    if path == "/apis":
        return {"groups": [_group(*group) for group in sorted(groups)]}
    roots = {_root(kind) for kind in KNOWN}
    if path not in roots:
        return None
    return {"resources": [_resource(kind) for kind in KNOWN if _root(kind) == path]}


def _root(kind: Kind) -> str:
    return f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"


def _group(name: str, version: str) -> dict[str, Any]:
    of_it = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [of_it], "preferredVersion": of_it}


def _resource(kind: Kind) -> dict[str, Any]:
    verbs = ["get", "list", "watch", "patch"]
    return {"name": kind.plural, "singularName": "", "kind": kind.name, "namespaced": True, "verbs": verbs}
