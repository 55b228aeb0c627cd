"""What routers and runtimes count while a rollout is judged: looked at from time to time, kept until a pass has heeded it.

It decides nothing, and it is memory alone: whoever takes over looks anew, and that first look is only the base of the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from moorage_operator import errors, ports
from moorage_operator.core import checks, counted, names
from moorage_operator.core.actions import Measure
from moorage_operator.core.counted import Look, Reading, Sample
from moorage_operator.core.kinds import Manifest
from moorage_operator.core.names import Key, RouterKey
from moorage_operator.index import Index

T = TypeVar("T")

ROUND_SECONDS = 0.5
LEAST_INTERVAL = timedelta(seconds=1)
CONCURRENCY = 32


@dataclass
class _Rollout:
    """One that is judged."""

    wanted: Measure
    base: Look | None = None
    latest: Look | None = None
    is_asked: bool = False

    def is_due(self, now: datetime) -> bool:
        if self.is_asked or self.wanted.is_cut:
            return False
        last = self.latest or self.base
        # Looks have whole seconds: two with the same could not be told apart, and what is between them would be heeded twice.
        interval = LEAST_INTERVAL if self.wanted.at_once else self.wanted.interval
        # One that is yet to come is from before the clock was put back.
        return last is None or now < last.at or now >= last.at + interval


class Meter:
    """`measure` says what to count, `sample` what was counted. `wake` is called with each key that has a new sample."""

    def __init__(
        self,
        *,
        agents: ports.Agents,
        runtimes: ports.Runtimes,
        prometheus: ports.Prometheus,
        index: Index,
        wake: Callable[[Key], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._agents = agents
        self._runtimes = runtimes
        self._prometheus = prometheus
        self._index = index
        self._wake = wake
        self._clock = clock
        self._rollouts: dict[Key, _Rollout] = {}
        self._slots = asyncio.Semaphore(CONCURRENCY)

    def sample(self, key: Key) -> Sample | None:
        """What happened since the look that was heeded last; None while there is nothing new."""
        rollout = self._rollouts.get(key)
        if rollout is None or rollout.base is None or rollout.latest is None:
            return None
        return counted.between(rollout.base, rollout.latest)

    def measure(self, key: Key, wanted: Measure | None, *, heeded: Sample | None) -> None:
        """From now on; None ends it. `heeded` is the sample whose consequences are in the status."""
        if wanted is None:
            self._rollouts.pop(key, None)
            return
        known = self._rollouts.get(key)
        if known is None or known.wanted.revisions != wanted.revisions or wanted.is_cut:
            # A look that is under way for the one before comes to nothing.
            known = self._rollouts[key] = _Rollout(wanted)
        known.wanted = wanted
        if heeded and known.latest and known.latest.at == heeded.until:
            known.base, known.latest = known.latest, None

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                for key, rollout in self._due():
                    tasks.create_task(self._look(key, rollout), name=f"counting for {key}")
                await asyncio.sleep(ROUND_SECONDS)

    def _due(self) -> Iterable[tuple[Key, _Rollout]]:
        now = self._clock()
        for key, rollout in self._rollouts.items():
            if rollout.is_due(now):
                rollout.is_asked = True
                yield key, rollout

    async def _look(self, key: Key, rollout: _Rollout) -> None:
        """Ask everybody once."""
        wanted, at = rollout.wanted, self._clock().replace(microsecond=0)
        routers = [pod for pod in self._index.pods(RouterKey(key.namespace)) if checks.is_ready(pod)]
        models = [pod for pod in self._index.pods(key) if _revision_of(pod) in wanted.revisions and _address_of(pod)]
        by_router, by_model, queried = await asyncio.gather(
            asyncio.gather(*(self._of_router(pod, key) for pod in routers)),
            asyncio.gather(*(self._of_model(pod) for pod in models)),
            asyncio.gather(*(self._of_query(query) for query in wanted.queries.values())),
        )
        before = rollout.latest or rollout.base or Look(at)
        look = Look(
            at,
            _readings(map(_name_of, routers), by_router, before.routers),
            _readings(((_revision_of(pod), _name_of(pod)) for pod in models), by_model, before.runtimes),
            dict(zip(wanted.queries, queried, strict=True)),
            all_answered=None not in by_model,
        )
        rollout.is_asked = False
        if self._rollouts.get(key) is not rollout:
            return
        if rollout.base is None:
            rollout.base = look
        else:
            rollout.latest = look
            self._wake(key)

    async def _of_router(self, pod: Manifest, key: Key) -> Reading | None:
        state = await self._asked(self._agents.state(_address_of(pod)))
        return counted.of_agent(state, key.name) if state else None

    async def _of_model(self, pod: Manifest) -> Reading | None:
        text = await self._asked(self._runtimes.metrics(_address_of(pod)))
        return counted.of_runtime(text) if text else None

    async def _of_query(self, query: str) -> float | str:
        async with self._slots:
            try:
                return await self._prometheus.value(query)
            except errors.QueryFailed as error:
                return str(error)

    async def _asked(self, question: Coroutine[None, None, T]) -> T | None:
        async with self._slots:
            try:
                return await question
            except (errors.AgentUnreachable, errors.RuntimeUnreachable):
                return None


def _readings(
    sources: Iterable[T], readings: Iterable[Reading | None], before: Mapping[T, Reading]
) -> dict[T, Reading]:
    """Who did not answer this time is taken to have counted nothing since."""
    found = {source: reading or before.get(source) for source, reading in zip(sources, readings, strict=True)}
    return {source: reading for source, reading in found.items() if reading}


def _revision_of(pod: Manifest) -> str:
    return str(pod["metadata"]["labels"].get(names.REVISION, ""))


def _name_of(pod: Manifest) -> str:
    return str(pod["metadata"]["name"])


def _address_of(pod: Manifest) -> str:
    return str(pod.get("status", {}).get("podIP", ""))
