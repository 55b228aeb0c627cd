"""The watches of `FakeCluster`: what has happened, in order, and who waits for more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Literal

import fake_ssa
from moorage_operator import errors
from moorage_operator.core import kinds
from moorage_operator.core.kinds import Manifest
from moorage_operator.ports import Change, Selection


class FakeWatches:
    """A test ends watches, makes the server forget, or takes it away: `down` is what every watch and list then raises."""

    def __init__(self) -> None:
        self.down: errors.ClusterError | None = None
        self.started = 0
        self.refused = 0
        self._history: list[tuple[int, Change]] = []
        self._forgotten = 0
        self._ends = 0
        self._wakers: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def record(self, happening: Literal["ADDED", "MODIFIED", "DELETED"], manifest: Manifest, revision: int) -> None:
        changed = fake_ssa.copied(manifest)
        changed["metadata"]["resourceVersion"] = str(revision)
        self._history.append((revision, Change(happening, changed)))
        self._wake()

    def end_all(self) -> None:
        """As the API server does it after some minutes."""
        self._ends += 1
        self._wake()

    def forget(self) -> None:
        """As etcd's compaction does it."""
        self._forgotten = self._history[-1][0] if self._history else 0
        self._history.clear()

    def set_down(self, error: errors.ClusterError | None) -> None:
        self.down = error
        self._wake()

    def check(self) -> None:
        if self.down:
            self.refused += 1
            raise self.down

    async def follow(self, selection: Selection, since: str) -> AsyncIterator[Change]:
        self.started += 1
        waker, ends, position = asyncio.Event(), self._ends, int(since)
        entry = (asyncio.get_running_loop(), waker)
        self._wakers.append(entry)
        try:
            while ends == self._ends:
                waker.clear()
                for revision, change in self._after(position):
                    position = revision
                    if selects(selection, change.manifest):
                        yield replace(change, manifest=fake_ssa.copied(change.manifest))
                await waker.wait()
        finally:
            self._wakers.remove(entry)

    def _after(self, position: int) -> Iterator[tuple[int, Change]]:
        self.check()
        if position < self._forgotten:
            raise errors.Expired(f"too old resource version: {position} ({self._forgotten})", status=410)
        yield from [item for item in self._history if item[0] > position]

    def _wake(self) -> None:
        for loop, waker in self._wakers:
            loop.call_soon_threadsafe(waker.set)


def selects(selection: Selection, manifest: Manifest) -> bool:
    ref, labels = kinds.ref_of(manifest), manifest["metadata"].get("labels", {})
    return (
        ref.kind == selection.kind
        and selection.namespace in ("", ref.namespace)
        and selection.name in ("", ref.name)
        and selection.labels.items() <= labels.items()
    )
