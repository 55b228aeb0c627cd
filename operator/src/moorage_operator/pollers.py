"""One poller a registry, and what it answers in the words of the core. Reconciling reads answers here and never waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

import msgspec

from moorage_operator import errors, poller, ports
from moorage_operator.core import spec
from moorage_operator.core.names import Key
from moorage_operator.core.observed import Answer
from moorage_operator.core.reasons import Problem, Reason
from moorage_operator.core.registry import ModelRef
from moorage_operator.index import Index

Observe = Callable[[str, float, str], None]
"""Called with a registry's name, the seconds that a question took, and its outcome."""


class Pollers:
    """See `companions.Answers`. `enqueue` is called with each key whose answer changed."""

    def __init__(
        self,
        registries: Mapping[str, ports.Registry],
        *,
        index: Index,
        enqueue: Callable[[Key], None],
        interval: float,
        observe: Observe,
    ) -> None:
        self._index = index
        self._enqueue = enqueue
        self._news: set[tuple[str, ModelRef]] = set()
        self._pollers = {name: self._poller(name, port, interval, observe) for name, port in registries.items()}

    def answer(self, registry: str, ref: ModelRef) -> Answer | None:
        asked = self._pollers.get(registry)
        if asked is None:
            return None
        found = asked.answer(ref)
        if found is None:
            asked.want(ref)
            return None
        problem = Problem(Reason(found.error.reason), str(found.error)) if found.error else None
        unreachable = isinstance(found.error, errors.RegistryUnreachable)
        return Answer(version=found.last_good if unreachable else found.version, problem=problem)

    async def run(self) -> None:
        """Poll all registries until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name, one in self._pollers.items():
                tasks.create_task(one.run(), name=f"poller of {name}")

    def _poller(self, name: str, port: ports.Registry, interval: float, observe: Observe) -> poller.Poller:
        return poller.Poller(
            port,
            watched=lambda: self._watched(name),
            on_change=lambda ref: self._changed(name, ref),
            now=lambda: datetime.now(UTC),
            interval=interval,
            observe=lambda seconds, outcome: observe(name, seconds, outcome),
        )

    def _watched(self, registry: str) -> set[ModelRef]:
        return {ref for _, ref in self._references(registry)}

    def _changed(self, registry: str, ref: ModelRef) -> None:
        """A registry that goes down changes all its answers at once: whose they are is looked up once for all of them."""
        if not self._news:
            asyncio.get_running_loop().call_soon(self._tell)
        self._news.add((registry, ref))

    def _tell(self) -> None:
        news, self._news = self._news, set()
        for registry in {name for name, _ in news}:
            for key, wanted in list(self._references(registry)):
                if (registry, wanted) in news:
                    self._enqueue(key)

    def _references(self, registry: str) -> Iterator[tuple[Key, ModelRef]]:
        for key, manifest in self._index.model_deployments():
            try:
                name, refs = spec.references(manifest)
            except msgspec.ValidationError:
                continue  # reconciling says so in its status
            if name == registry:
                yield from ((key, ref) for ref in refs)
