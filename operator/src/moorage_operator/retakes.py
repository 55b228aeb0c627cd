"""How often each child had to be put back, by key. Memory alone: whoever takes over counts anew, and a fight is seen again soon."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from moorage_operator import ports
from moorage_operator.core import compare, contests
from moorage_operator.core.actions import Action, Apply, Delete, Leave, RestoreTemplate
from moorage_operator.core.contests import Contest, Rival, Taken
from moorage_operator.core.kinds import Ref
from moorage_operator.index import AnyKey


class Retakes:
    """`contests` before a pass decides, `done` with each of its writes, `look` when it leaves a child to others."""

    def __init__(self, cluster: ports.Cluster) -> None:
        self._cluster = cluster
        self._of: dict[AnyKey, dict[Ref, Taken]] = {}

    def contests(self, key: AnyKey, now: datetime) -> dict[Ref, Contest]:
        found = {ref: taken.contest(now) for ref, taken in self._of.get(key, {}).items() if taken.times}
        return {ref: contest for ref, contest in found.items() if contest}

    def done(self, key: AnyKey, action: Action, now: datetime) -> None:
        """What is applied a second time was taken from us in between, unless we have deleted it."""
        known = self._of.setdefault(key, {})
        match action:
            case Apply(manifest):
                digest, before = compare.applied_hash(manifest), known.get(action.ref, Taken(""))
                taken = before.again(now) if before.digest == digest else Taken(digest, before.times, before.rival)
                known[action.ref] = taken
            case RestoreTemplate(_, desired):
                digest = compare.applied_hash(desired)
                known[action.deployment] = replace(known.get(action.deployment, Taken("")), digest=digest).again(now)
            case Delete(ref):
                known.pop(ref, None)

    async def look(self, key: AnyKey, actions: Iterable[Action], now: datetime) -> bool:
        """Who fights with us, where that is not known yet. Whether there is anything new."""
        known, before = self._of.get(key, {}), self.contests(key, now)
        new = [item for item in actions if isinstance(item, Leave) and not before[item.ref].is_on]
        for item in new:
            live = await self._cluster.get(item.ref)
            rival = contests.rival_in(live, item.desired) if live else Rival()
            known[item.ref] = known[item.ref].again(now, rival)
        return bool(new)

    def forget(self, key: AnyKey) -> None:
        self._of.pop(key, None)
