"""`ports.Registry` over one MLflow server: a question or a wish in, a checked answer or one of `errors.RegistryError` out.

MLflow's client blocks, so it runs in threads of this registry's own: a hanging one holds up no other registry.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from mlflow.entities.model_registry import ModelVersionTag

from moorage_operator import errors
from moorage_operator.adapters.registry import explain, mlmodel, sources, wording
from moorage_operator.adapters.registry.client import NotThere, RegistryClient
from moorage_operator.adapters.registry.declaration import RegistryDeclaration
from moorage_operator.core.registry import ModelRef, ModelVersion
from moorage_operator.core.signatures import Signature

T = TypeVar("T")

VERSION = re.compile(r"[1-9][0-9]{0,8}")
RUN_ID = re.compile(r"[A-Za-z0-9_-]{0,64}")
MAX_KNOWN = 10_000
"""Versions that are remembered."""
DEADLINE_SECONDS = 8.0
"""Of one question: a registry that never answers, too, is told within ten seconds."""
SIGNATURE_SECONDS = 2.0
"""A version whose signature takes longer is answered without one."""

log = logging.getLogger(__name__)


class MlflowRegistry:
    """One declared registry. Download address and signature of a version never change, so they are asked for only once."""

    def __init__(
        self, declaration: RegistryDeclaration, *, threads: int = 4, deadline: float = DEADLINE_SECONDS
    ) -> None:
        self._declaration = declaration
        self._deadline = deadline
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"registry-{declaration.name}")
        # Apart from the questions: a write that hangs must not look like a registry that does not answer them.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"registry-{declaration.name}-writer")
        self._sources: OrderedDict[tuple[object, ...], str] = OrderedDict()
        self._signatures: OrderedDict[ModelVersion, Signature | None] = OrderedDict()

    async def resolve(self, model: ModelRef) -> ModelVersion:
        """The version that the reference names now; only a version in state READY is an answer."""
        found = await self._run(self._pool, lambda client: self._resolve(client, model))
        return replace(found, signature=await self._signature(found))

    async def set_tags(self, model: str, version: str, tags: Mapping[str, str | None]) -> None:
        """Make these tags of a version so, in this order; None removes one. What is so already is not written."""
        await self._run(self._writer, lambda client: self._set_tags(client, ModelRef(model, version=version), tags))

    async def move_alias(self, model: str, alias: str, *, away_from: str, to: str) -> bool:
        """Let the alias name version `to` if it names `away_from` now; whether it names `to` then."""
        moving = ModelRef(model, alias=alias)
        return await self._run(self._writer, lambda client: self._move(client, moving, away_from, to))

    async def _run(self, pool: ThreadPoolExecutor, ask: Callable[[RegistryClient], T], seconds: float = math.inf) -> T:
        """In a thread of the pool, until the deadline."""
        seconds = min(seconds, self._deadline)
        until = time.monotonic() + seconds

        def work() -> T:
            return ask(RegistryClient(self._declaration, deadline=until))

        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(pool, work)
        except errors.RegistryError:
            raise
        except TimeoutError as error:
            raise errors.RegistryUnreachable(f"registry '{self._declaration.name}' did not answer in time") from error
        except Exception as error:
            raise self._nonsense() from error

    def close(self) -> None:
        """Start no further request. One that is under way ends by its own deadline."""
        for pool in (self._pool, self._writer):
            pool.shutdown(wait=False, cancel_futures=True)

    def _resolve(self, client: RegistryClient, model: ModelRef) -> ModelVersion:
        try:
            found = self._checked(_ask(client, model), model)
            source = self._source(client, found)
        except NotThere as error:
            raise explain.missing(client, model, registry=self._declaration.name) from error
        return ModelVersion(model.name, found.version, found.run_id or "", source)

    def _set_tags(self, client: RegistryClient, version: ModelRef, tags: Mapping[str, str | None]) -> None:
        try:
            present = self._the_same(_ask(client, version), version).tags
            for key, value in tags.items():
                if value is None and key in present:
                    client.delete_model_version_tag(version.name, version.version, key)
                elif value is not None and present.get(key) != value:
                    client.set_model_version_tag(version.name, version.version, ModelVersionTag(key, value))
        except NotThere as error:
            raise explain.missing(client, version, registry=self._declaration.name) from error

    def _move(self, client: RegistryClient, moving: ModelRef, away_from: str, to: str) -> bool:
        try:
            named = self._the_same(_ask(client, moving), moving).version
        except NotThere:
            return False
        if named != away_from:
            return bool(named == to)
        try:
            client.set_registered_model_alias(moving.name, moving.alias, to)
        except NotThere as error:
            missing = ModelRef(moving.name, version=to)
            raise explain.missing(client, missing, registry=self._declaration.name) from error
        return True

    def _checked(self, found: Any, model: ModelRef) -> Any:
        """The registry's description of a version, as soon as it may be believed."""
        if found.name != model.name and found.name.casefold() == model.name.casefold():
            raise explain.other_name(model.name, found.name, registry=self._declaration.name)
        if not RUN_ID.fullmatch(self._the_same(found, model).run_id or ""):
            raise self._nonsense()
        if found.status != "READY":
            raise errors.VersionNotReady(_not_ready(model.name, found))
        return found

    def _the_same(self, found: Any, model: ModelRef) -> Any:
        """It speaks of what it was asked for."""
        asked_for = found.name == model.name and model.version in {"", found.version}
        if not (asked_for and VERSION.fullmatch(found.version)):
            raise self._nonsense()
        return found

    def _source(self, client: RegistryClient, found: Any) -> str:
        # A model that is deleted and registered anew starts at version 1 again: the name and the number aren't enough.
        key = (found.name, found.version, found.creation_timestamp, found.source)
        if key not in self._sources:
            uri = client.get_model_version_download_uri(found.name, found.version)
            described = f"'{wording.shown(found.name)}' version {found.version}"
            self._sources[key] = sources.checked(uri, model=described, tracking_uri=self._declaration.tracking_uri)
            _bound(self._sources)
        return self._sources[key]

    async def _signature(self, version: ModelVersion) -> Signature | None:
        """What can't be read is not asked for again, whatever the reason: the version's first pod tells it, and a poll has to go on."""
        folder = sources.proxied(version.source, tracking_uri=self._declaration.tracking_uri)
        if folder is None:
            return None
        if version not in self._signatures:
            self._signatures[version] = await self._read_signature(version, f"{folder}/{mlmodel.FILE}")
            _bound(self._signatures)
        return self._signatures.get(version)

    async def _read_signature(self, version: ModelVersion, endpoint: str) -> Signature | None:
        try:
            return await self._run(self._pool, lambda client: _signature_at(client, endpoint), SIGNATURE_SECONDS)
        except errors.RegistryError as error:
            what = f"'{wording.shown(version.name)}' version {version.version}"
            log.info("the signature of %s is known when its first pod has fetched it: %s", what, error)
            return None

    def _nonsense(self) -> errors.RegistryUnreachable:
        return errors.RegistryUnreachable(
            f"registry '{self._declaration.name}' does not answer like MLflow: check its trackingURI"
        )


def _ask(client: RegistryClient, model: ModelRef) -> Any:
    if not model.version:
        return client.get_model_version_by_alias(model.name, model.alias)
    if not VERSION.fullmatch(model.version):
        raise NotThere
    return client.get_model_version(model.name, model.version)


def _signature_at(client: RegistryClient, endpoint: str) -> Signature | None:
    try:
        return mlmodel.signature(client.file(endpoint, most=mlmodel.MAX_BYTES))
    except NotThere:
        return None


def _bound(known: OrderedDict[Any, Any]) -> None:
    """The oldest is forgotten for the newest."""
    if len(known) > MAX_KNOWN:
        known.popitem(last=False)


def _not_ready(name: str, found: Any) -> str:
    described = f"version {found.version} of model '{wording.shown(name)}'"
    if found.status == "PENDING_REGISTRATION":
        return f"{described} is still being registered: it is used as soon as MLflow says READY"
    return f"{described} could not be registered, MLflow calls it {wording.shown(found.status)}: register it again"
