"""Whom a changed answer of a registry wakes up, and at what cost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import simulated_time
from fake_registry import FakeRegistry
from moorage_operator import errors
from moorage_operator.core.kinds import MODEL_DEPLOYMENT, Manifest
from moorage_operator.core.names import Key
from moorage_operator.index import Index
from moorage_operator.pollers import Pollers

COUNT = 50


class CountingIndex(Index):
    """How often all ModelDeployments were gone through."""

    walks = 0

    def model_deployments(self) -> Iterator[tuple[Key, Manifest]]:
        self.walks += 1
        return super().model_deployments()


def an_index() -> CountingIndex:
    index = CountingIndex()
    for number in range(COUNT):
        metadata = {"namespace": "models", "name": f"m-{number}", "uid": f"u-{number}", "resourceVersion": "1"}
        model = {"name": f"model-{number}", "alias": "champion"}
        index.put(MODEL_DEPLOYMENT, {"metadata": metadata, "spec": {"model": model}})
    return index


def test_many_answers_that_change_at_once_wake_up_each_key_and_are_looked_up_together() -> None:
    async def play() -> None:
        registry, index, woken = FakeRegistry(), an_index(), list[Key]()
        pollers = Pollers(
            {"default": registry}, index=index, enqueue=woken.append, interval=10, observe=lambda *_: None
        )
        polling = asyncio.create_task(pollers.run())
        await asyncio.sleep(30)
        woken.clear()
        index.walks = 0
        registry.failure = errors.RegistryUnreachable("no answer")
        await asyncio.sleep(15)

        assert sorted(woken) == sorted(key for key, _ in index.model_deployments())
        assert index.walks < COUNT / 5
        polling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await polling

    simulated_time.run(play())
