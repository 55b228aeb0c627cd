"""From a change of a spec to the first child that is written for it: one at a time, then all at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks import lab, plain, population, processes, registry, scale, watches
from moorage_operator.adapters import cluster as cluster_adapter
from moorage_operator.core.kinds import CONTROLLER_REVISION, DEPLOYMENT, MODEL_DEPLOYMENT, Manifest, Ref

WITHIN_SECONDS = 60.0
MARK = "benchmark/sample"
STRIDE = 37
"""One sample is taken from so many objects after the one before; a prime, so that all have their turn."""


@dataclass
class Latencies:
    """In seconds, from before the change is sent to when a watch shows the child."""

    count: int
    replicas: list[float] = field(default_factory=list)
    """The Deployment gets another `replicas`."""
    revision: list[float] = field(default_factory=list)
    """A new revision: its ControllerRevision comes first."""
    at_once: list[float] = field(default_factory=list)
    """Each of all, changed with eight workers; from when the first change is sent."""
    peak_mib: float = 0.0
    """The operator's memory, from its start to after the last sample."""


class Bench:
    """One cluster full of ModelDeployments, and eyes on them."""

    def __init__(self, client: cluster_adapter.KubernetesCluster, found: dict[Any, watches.Watch], count: int) -> None:
        self._client = client
        self._own = found[MODEL_DEPLOYMENT]
        self._deployments = found[DEPLOYMENT]
        self._revisions = found[CONTROLLER_REVISION]
        self._names = [item["metadata"]["name"] for item in population.model_deployments(count)]

    async def replicas(self, samples: int) -> list[float]:
        wanted = dict.fromkeys(self._names, 1)
        found = []
        for name in self._picked(samples):
            wanted[name] = 3 - wanted[name]  # 1, 2, 1, ...
            found.append(
                await self._sample(
                    name, "/spec/replicas", wanted[name], self._deployments, _is(name, "replicas", wanted[name])
                )
            )
        return found

    async def revision(self, samples: int) -> list[float]:
        found = []
        for number, name in enumerate(self._picked(samples)):
            value = {MARK: str(number)}
            found.append(
                await self._sample(name, "/spec/pod/annotations", value, self._revisions, _marked(name, str(number)))
            )
        return found

    async def at_once(self) -> list[float]:
        """A change that moves no pod: what is measured is the operator alone."""
        deadline = 601

        def is_changed(item: Manifest) -> bool:
            return bool(item["spec"].get("progressDeadlineSeconds") == deadline and item["spec"]["replicas"] > 0)

        def is_settled(item: Manifest) -> bool:
            return is_changed(item) and item["status"].get("observedGeneration") == item["metadata"]["generation"]

        written = self._deployments.milestone(is_changed, key=watches.owner_of)
        settled = self._deployments.milestone(is_settled, key=watches.owner_of)
        names = iter(self._names)
        began = time.monotonic()
        await asyncio.gather(*(self._change_all(names, deadline) for _ in range(scale.WORKERS)))
        await written.reached(len(self._names), scale.WITHIN_SECONDS, "changed Deployments")
        # The next sample waits for a pod, which controllers that are behind would make late.
        await settled.reached(len(self._names), scale.WITHIN_SECONDS, "changed Deployments that their controller saw")
        return [moment - began for moment in written.moments.values()]

    async def _change_all(self, names: Iterator[str], deadline: int) -> None:
        for name in names:
            await self._change(name, "/spec/rollout/progressDeadlineSeconds", deadline)

    async def _sample(
        self, name: str, path: str, value: object, eyes: watches.Watch, holds: Callable[[Manifest], bool]
    ) -> float:
        """The next one begins when this one is Ready."""
        written = eyes.milestone(holds, key=watches.name_of)
        began = time.monotonic()
        stored = await self._change(name, path, value)
        seen = await written.reached(1, WITHIN_SECONDS, f"children of {name} with the change")
        generation, is_ready = stored["metadata"]["generation"], watches.has("Ready")
        ready = self._own.milestone(
            lambda item: item["metadata"]["generation"] >= generation and is_ready(item), key=watches.name_of
        )
        ready.see(self._own.latest[name], seen)
        while name not in ready.moments:
            await ready.reached(len(ready.moments) + 1, WITHIN_SECONDS, f"ModelDeployments Ready, waiting for {name}")
        eyes.drop(written)
        self._own.drop(ready)
        return seen - began

    async def _change(self, name: str, path: str, value: object) -> Manifest:
        ref = Ref(MODEL_DEPLOYMENT, lab.NAMESPACE, name)
        return await self._client.patch(ref, [{"op": "add", "path": path, "value": value}])

    def _picked(self, samples: int) -> Iterator[str]:
        return (self._names[number * STRIDE % len(self._names)] for number in range(samples))


def run(name: str, mlflow: registry.Mlflow, count: int, samples: int) -> Latencies:
    with lab.new(name) as cluster, processes.operator(cluster, mlflow.uri) as running:
        asyncio.run(_populate(cluster, count))
        running.wait_until_quiet(scale.WITHIN_SECONDS)
        return asyncio.run(_measure(cluster, running, count, samples))


async def _populate(cluster: lab.Lab, count: int) -> None:
    async with watches.watch(cluster.kubeconfig, MODEL_DEPLOYMENT, lab.NAMESPACE) as own:
        ready = own.milestone(watches.has("Ready"), key=watches.name_of)
        await scale.create(cluster, [plain.Item(item, []) for item in population.model_deployments(count)])
        await ready.reached(count, scale.WITHIN_SECONDS)


async def _measure(cluster: lab.Lab, running: processes.Operator, count: int, samples: int) -> Latencies:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(cluster_adapter.connect(cluster.kubeconfig))
        found = {
            kind: await stack.enter_async_context(watches.watch(cluster.kubeconfig, kind, lab.NAMESPACE))
            for kind in (MODEL_DEPLOYMENT, DEPLOYMENT, CONTROLLER_REVISION)
        }
        bench = Bench(client, found, count)
        latencies = Latencies(count)
        latencies.at_once = await bench.at_once()
        await asyncio.to_thread(running.wait_until_quiet, scale.WITHIN_SECONDS)
        latencies.replicas = await bench.replicas(samples)
        latencies.revision = await bench.revision(samples)
        latencies.peak_mib = running.memory("VmHWM")
        return latencies


def _is(name: str, field_name: str, value: object) -> Callable[[Manifest], bool]:
    return lambda item: watches.owner_of(item) == name and item["spec"].get(field_name) == value


def _marked(name: str, mark: str) -> Callable[[Manifest], bool]:
    def holds(item: Manifest) -> bool:
        annotations = item["data"]["template"]["metadata"].get("annotations", {})
        return watches.owner_of(item) == name and annotations.get(MARK) == mark

    return holds
