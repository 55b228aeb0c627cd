"""Carries errands to the registries (`core.told`), one at a time for each registry, beside reconciling and never in its way.

It is memory alone, and decides nothing: a pass says what is still to be done, reads what has come of it, and writes that down.
An errand that a registry does not answer is tried again, by ever longer waits, for as long as a pass wants it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Mapping

from moorage_operator import errors, ports
from moorage_operator.core.names import Key
from moorage_operator.core.notices import AliasMove, Errand, Report, Stage

log = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 60.0

GONE = (errors.ModelNotFound, errors.VersionNotFound)
"""Who has deleted a version wants no tags on it."""


class Tellers:
    """See `companions.Errands`. `wake` is called with each key that has something new to read."""

    def __init__(self, registries: Mapping[str, ports.Registry], *, wake: Callable[[Key], None]) -> None:
        self._registries = registries
        self._wake = wake
        self._errands: dict[Key, dict[Errand, Report | None]] = {}
        self._queues: dict[str, asyncio.Queue[tuple[Key, Errand]]] = {name: asyncio.Queue() for name in registries}

    def reports(self, key: Key) -> Mapping[Errand, Report]:
        return {errand: report for errand, report in self._errands.get(key, {}).items() if report}

    def want(self, key: Key, errands: Collection[Errand]) -> None:
        before = self._errands.pop(key, {})
        if errands:
            self._errands[key] = {errand: before.get(errand) for errand in errands}
        for errand in errands:
            if errand not in before and errand.registry in self._queues:
                self._queues[errand.registry].put_nowait((key, errand))

    async def run(self) -> None:
        """Tell until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name in self._registries:
                tasks.create_task(self._tell(name), name=f"teller of {name}")

    async def _tell(self, name: str) -> None:
        queue, wait = self._queues[name], FIRST_WAIT_SECONDS
        while True:
            key, errand = await queue.get()
            if not self._is_wanted(key, errand):
                continue
            try:
                report = await _carry_out(self._registries[name], errand)
            except Exception as error:
                _log_failure(key, error)
                queue.put_nowait((key, errand))  # behind the others: it may be this one alone
                await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 - no secret
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
                continue
            wait = FIRST_WAIT_SECONDS
            log.info("%s: %s: %s", key, report.stage, errand)
            if self._is_wanted(key, errand):
                self._errands[key][errand] = report
                self._wake(key)

    def _is_wanted(self, key: Key, errand: Errand) -> bool:
        """And not done: it is in the queue twice if it was taken back for a while."""
        return self._errands.get(key, {}).get(errand, _NOT_WANTED) is None


_NOT_WANTED = Report(Stage.SKIPPED)


async def _carry_out(registry: ports.Registry, errand: Errand) -> Report:
    """What has come of it for good; else an exception."""
    try:
        if isinstance(errand, AliasMove):
            arguments = {"away_from": errand.away_from, "to": errand.to}
            is_there = await registry.move_alias(errand.model, errand.alias, **arguments)
            return Report(Stage.DONE if is_there else Stage.SKIPPED)
        await registry.set_tags(errand.model, errand.version, dict(errand.tags))
        return Report(Stage.DONE)
    except errors.RegistryUnreachable:
        raise
    except GONE as error:
        return Report(Stage.FAILED, str(error)) if isinstance(errand, AliasMove) else Report(Stage.SKIPPED)
    except errors.RegistryError as error:
        return Report(Stage.FAILED, str(error))


def _log_failure(key: Key, error: Exception) -> None:
    if isinstance(error, errors.RegistryUnreachable):
        log.info("%s: the registry was not told, trying again: %s", key, error)
    else:
        log.error("%s: a bug in the operator: the registry was not told, trying again", key, exc_info=error)
