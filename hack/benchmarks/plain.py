"""The plain script: creates objects and their children with the operator's own client and as many workers, and looks at nothing.

A process of its own: `python -m benchmarks.plain FILE`. It says "ready", starts when its stdin says anything, and prints what it used.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from moorage_operator.adapters import cluster
from moorage_operator.core.kinds import Manifest


class Item(msgspec.Struct):
    """An owner, and what belongs to it."""

    owner: Manifest
    children: list[Manifest]


class Work(msgspec.Struct):
    kubeconfig: str
    workers: int
    items: list[Item]


class Done(msgspec.Struct):
    """When all owners were there and when it ended, in time.monotonic(), and the CPU seconds between."""

    began: float
    ended: float
    cpu_seconds: float


async def run(work: Work) -> Done:
    async with cluster.connect(work.kubeconfig) as client:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        began, cpu = time.monotonic(), _cpu_seconds()
        items = iter(work.items)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(work.workers):
                tasks.create_task(_worker(client, items))
        return Done(began, time.monotonic(), _cpu_seconds() - cpu)


async def _worker(client: cluster.KubernetesCluster, items: Iterator[Item]) -> None:
    for item in items:
        stored = await client.create(item.owner)
        for child in item.children:
            for reference in child["metadata"]["ownerReferences"]:
                reference["uid"] = stored["metadata"]["uid"]
            await client.apply(child)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    done = asyncio.run(run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Work)))
    print(json.dumps(msgspec.to_builtins(done)), flush=True)
