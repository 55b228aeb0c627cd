"""`ports.Registry` over one MLflow server: a question in, a checked answer or one of `errors.RegistryError` out.

MLflow's client blocks, so it runs in threads of this registry's own: a hanging one holds up no other registry.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from moorage_operator import errors
from moorage_operator.adapters.registry import explain, sources, wording
from moorage_operator.adapters.registry.client import NotThere, RegistryClient
from moorage_operator.adapters.registry.declaration import RegistryDeclaration
from moorage_operator.core.registry import ModelRef, ModelVersion

VERSION = re.compile(r"[1-9][0-9]{0,8}")
RUN_ID = re.compile(r"[A-Za-z0-9_-]{0,64}")
MAX_SOURCES = 10_000
DEADLINE_SECONDS = 8.0
"""Of one question: a registry that never answers, too, is told within ten seconds."""


class MlflowRegistry:
    """One declared registry. The download address of a version never changes, so it is asked for only once."""

    def __init__(
        self, declaration: RegistryDeclaration, *, threads: int = 4, deadline: float = DEADLINE_SECONDS
    ) -> None:
        self._declaration = declaration
        self._deadline = deadline
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"registry-{declaration.name}")
        self._sources: OrderedDict[tuple[object, ...], str] = OrderedDict()

    async def resolve(self, model: ModelRef) -> ModelVersion:
        """The version that the reference names now; only a version in state READY is an answer."""
        loop = asyncio.get_running_loop()
        until = time.monotonic() + self._deadline
        try:
            async with asyncio.timeout(self._deadline):
                return await loop.run_in_executor(self._pool, self._resolve, model, until)
        except errors.RegistryError:
            raise
        except TimeoutError as error:
            raise errors.RegistryUnreachable(f"registry '{self._declaration.name}' did not answer in time") from error
        except Exception as error:
            raise self._nonsense() from error

    def close(self) -> None:
        """Start no further request. One that is under way ends by its own deadline."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _resolve(self, model: ModelRef, until: float) -> ModelVersion:
        client = RegistryClient(self._declaration, deadline=until)
        try:
            found = self._checked(_ask(client, model), model)
            source = self._source(client, found)
        except NotThere as error:
            raise explain.missing(client, model, registry=self._declaration.name) from error
        return ModelVersion(model.name, found.version, found.run_id or "", source)

    def _checked(self, found: Any, model: ModelRef) -> Any:
        """The registry's description of a version, as soon as it may be believed."""
        if found.name != model.name and found.name.casefold() == model.name.casefold():
            raise explain.other_name(model.name, found.name, registry=self._declaration.name)
        asked_for = found.name == model.name and model.version in {"", found.version}
        if not (asked_for and VERSION.fullmatch(found.version) and RUN_ID.fullmatch(found.run_id or "")):
            raise self._nonsense()
        if found.status != "READY":
            raise errors.VersionNotReady(_not_ready(model.name, found))
        return found

    def _source(self, client: RegistryClient, found: Any) -> str:
        # A model that is deleted and registered anew starts at version 1 again: the name and the number aren't enough.
        key = (found.name, found.version, found.creation_timestamp, found.source)
        if key not in self._sources:
            uri = client.get_model_version_download_uri(found.name, found.version)
            described = f"'{wording.shown(found.name)}' version {found.version}"
            self._sources[key] = sources.checked(uri, model=described, tracking_uri=self._declaration.tracking_uri)
            if len(self._sources) > MAX_SOURCES:
                self._sources.popitem(last=False)
        return self._sources[key]

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


def _not_ready(name: str, found: Any) -> str:
    described = f"version {found.version} of model '{wording.shown(name)}'"
    if found.status == "PENDING_REGISTRATION":
        return f"{described} is still being registered: it is used as soon as MLflow says READY"
    return f"{described} could not be registered, MLflow calls it {wording.shown(found.status)}: register it again"
