"""kopf as the event source, and no more: every watch event goes into our index and wakes one key up. Nothing is decided here.

No create/update/delete handlers, no daemons, no timers, no finalizers: each of them would write to every object.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import ssl
from collections.abc import Callable, Collection, Iterator
from typing import Any

import kopf

from moorage_operator import errors, trust
from moorage_operator.core import names
from moorage_operator.core.kinds import CHILDREN, MODEL_DEPLOYMENT, POD, Kind, Manifest

WATCHED = (MODEL_DEPLOYMENT, *CHILDREN, POD)

Feed = Callable[[Kind, str, Manifest], None]
"""Called with the kind, the type of the event (ADDED, MODIFIED, DELETED, or empty for a first listing), and the object."""


class _ForEver:
    """Delays between attempts to reach the API server: growing to 10 s with jitter, and never the last one."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * random.uniform(0.5, 1)  # noqa: S311 - no secret
            delay = min(10.0, delay * 2)


class _NoDiffBase(kopf.DiffBaseStorage):
    """kopf's memory of how an object was. It prepares one for each event by copying all of it, though no handler here asks for it."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is kept."""


class _NoProgress(kopf.ProgressStorage):
    """kopf's memory of how far handlers came. Ours are all of one step, and copying it is as dear as above."""

    def fetch(self, *, key: object, body: kopf.Body) -> None:
        return None

    def store(self, *, key: object, record: object, body: kopf.Body, patch: kopf.Patch) -> None:
        """Nothing is kept."""

    def purge(self, *, key: object, body: kopf.Body, patch: kopf.Patch) -> None:
        """Nothing is kept."""

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        """Nothing is kept."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


class _Connection(kopf.ConnectionInfo):
    """kopf asks for new credentials when it is told that its own are not valid, but never looks at the authority's file again."""

    def as_ssl_context(self) -> ssl.SSLContext:
        if not self.ca_path:
            return super().as_ssl_context()
        return trust.FollowingContext(super().as_ssl_context, os.fsdecode(self.ca_path))


async def watch(
    feed: Feed, *, settings: kopf.OperatorSettings, namespaces: Collection[str] = (), started: Callable[[], None]
) -> None:
    """For as long as kopf can; `started` is called when it has set itself up.

    An error in a stream, other than that a version is too old, is to kopf the end of all. It then cancels whatever runs in this loop, so
    only a new process can go on.
    """
    ready = asyncio.Event()
    waiting = asyncio.create_task(_call_when(ready, started))
    try:
        await kopf.operator(
            registry=_make_registry(feed),
            settings=settings,
            clusterwide=not namespaces,
            namespaces=namespaces,
            ready_flag=ready,
        )
    except Exception as error:  # kopf's own for this is not public
        raise errors.OperatorError(f"the watches have ended: {error}") from error
    finally:
        waiting.cancel()
    raise errors.OperatorError("the watches have ended")


async def _call_when(ready: asyncio.Event, started: Callable[[], None]) -> None:
    await ready.wait()
    started()


def _make_registry(feed: Feed) -> kopf.OperatorRegistry:
    """All handlers: one `on.event` a kind, and the login."""
    registry = kopf.OperatorRegistry()
    for kind in WATCHED:
        _watch(registry, kind, feed)

    kopf.on.login(registry=registry)(_log_in)
    return registry


def _log_in(**arguments: Any) -> kopf.ConnectionInfo | None:
    """To the same API server as adapters.cluster: in a pod by its address, as DNS may be what is broken."""
    found = None if os.environ.get("KUBECONFIG") else kopf.login_with_service_account(**arguments)
    if found:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        found = dataclasses.replace(found, server=f"https://{f'[{host}]' if ':' in host else host}:{port}")
    else:
        found = kopf.login_with_kubeconfig(**arguments)
    return _Connection(**vars(found)) if found else None


def make_settings() -> kopf.OperatorSettings:
    """kopf without its peering, its scanning and its posting of events; it gives up on a watch only when it must."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.process.ultimate_exiting_timeout = 20
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    # The API server sends a bookmark each minute; a stream that is silent for longer has lost its other end.
    settings.watching.inactivity_timeout = 70
    # Seven kinds are listed at once, and a worker keeps the last event of its object until it has been idle for so long:
    # with pages of 500 and kopf's 5 s a restart among a thousand ModelDeployments took 100 MiB more for a moment.
    settings.watching.chunk_size = 20
    settings.queueing.idle_timeout = 0.2
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = _ForEver()
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    settings.persistence.finalizer = f"{names.GROUP}/never-used"
    for kind in (*CHILDREN, POD):
        settings.watching.label_selectors[kind.group, kind.version, kind.plural] = (
            f"{names.MANAGED_BY}={names.OPERATOR}"
        )
    return settings


def _watch(registry: kopf.OperatorRegistry, kind: Kind, feed: Feed) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=f"watch-{kind.plural}")  # type: ignore[arg-type]  # kopf's protocol names every keyword
    async def handle(event: dict[str, Any], **_: Any) -> None:
        feed(kind, event["type"] or "", event["object"])
