"""The objects of one selection, in memory, as the API server has them: a list, and the watch that goes on from it.

A watch that ends is taken up where it ended. After a failure everything is listed again, which also tells that the API server is
back. While it does not answer, what is known stays: an old list of pods is better than none.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from moorage_operator import errors, ports
from moorage_operator.core.kinds import Manifest

log = logging.getLogger(__name__)

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 10.0


class Mirror:
    """`changed` is called after each change; `problem` is empty while the API server answers."""

    def __init__(self, cluster: ports.Cluster, selection: ports.Selection, changed: Callable[[], None]) -> None:
        self.objects: dict[str, Manifest] = {}
        """By name; where the selection has no namespace, by namespace/name."""
        self.listed = False
        self.problem = ""
        self._cluster = cluster
        self._selection = selection
        self._changed = changed
        self._position = ""
        self._delay = _FIRST_DELAY

    async def run(self) -> None:
        """Never ends by itself."""
        while True:
            try:
                await (self._follow() if self._position else self._list())
            except errors.Expired:
                self._position = ""
            except errors.ClusterError as error:
                self._position = ""
                self._note(str(error))
                await asyncio.sleep(self._delay * random.uniform(0.5, 1))  # noqa: S311 - spreads the pods, no secret
                self._delay = min(2 * self._delay, _LONGEST_DELAY)

    async def _list(self) -> None:
        snapshot = await self._cluster.snapshot(self._selection)
        self.objects = {self._name_of(item): item for item in snapshot.objects}
        self._position = snapshot.resource_version
        self.listed = True
        self._answered()
        self._changed()

    async def _follow(self) -> None:
        async for change in self._cluster.follow(self._selection, since=self._position):
            self._take(change)
        # An ended watch is an answer as well; a server that ends them at once would be asked in a tight loop.
        self._answered()
        await asyncio.sleep(_FIRST_DELAY * random.random())  # noqa: S311 - the same

    def _take(self, change: ports.Change) -> None:
        self._position = change.resource_version
        self._answered()
        if change.happening == "BOOKMARK":
            return
        name = self._name_of(change.manifest)
        if change.happening == "DELETED":
            self.objects.pop(name, None)
        else:
            self.objects[name] = change.manifest
        self._changed()

    def _name_of(self, manifest: Manifest) -> str:
        metadata = manifest["metadata"]
        return str(metadata["name"] if self._selection.namespace else f"{metadata['namespace']}/{metadata['name']}")

    def _answered(self) -> None:
        self._note("")
        self._delay = _FIRST_DELAY

    def _note(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("%s: %s", self._selection.kind.plural, problem or "the API server answers again")
        self.problem = problem
