"""Whether the API server still lets us see what we work on.

A watch that is open goes on when the right to it has gone, and one that can't begin is tried for ever without a word: so each kind is
listed from time to time, by a name that nobody has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from moorage_operator import errors, ports
from moorage_operator.handlers import WATCHED

log = logging.getLogger(__name__)

LOOK_SECONDS = 15.0
AGAIN_SECONDS = 5.0
NOBODY = "moorage-nobody"


class Sight:
    """`problem` is a sentence for the readiness probe, empty when all is well; `restored` is called when it ends."""

    def __init__(self, cluster: ports.Cluster, *, namespaces: Sequence[str], restored: Callable[[], None]) -> None:
        self.problem = ""
        self._cluster = cluster
        self._namespaces = namespaces or ("",)
        self._restored = restored

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(AGAIN_SECONDS if self.problem else LOOK_SECONDS)
            self._note(await self._look())

    async def _look(self) -> str:
        try:
            for kind in WATCHED:
                for namespace in self._namespaces:
                    await self._cluster.snapshot(ports.Selection(kind, namespace, name=NOBODY))
        except errors.ClusterError as error:
            return f"the API server does not let the operator see what it works on: {error}"
        return ""

    def _note(self, problem: str) -> None:
        before, self.problem = self.problem, problem
        if problem and problem != before:
            log.error("%s", problem)
        if before and not problem:
            log.warning("the operator sees what it works on again")
            self._restored()
