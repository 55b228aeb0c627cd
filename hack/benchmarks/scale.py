"""All at once: so many ModelDeployments are created while the operator runs, beside the plain script that writes the same children.

Operator and script take turns, each on a new cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec

from benchmarks import lab, plain, population, processes, registry, watches
from devcluster import console
from moorage_operator.core.kinds import DEPLOYMENT, MODEL_DEPLOYMENT
from moorage_operator.settings import Settings

WORKERS = 8
"""Of the script, as many as the operator has by default."""

WITHIN_SECONDS = 600.0
IDLE_SECONDS = 20.0
RESYNC_SECONDS = 20.0
"""Instead of the default of 300, so that two can be waited for."""


@dataclass(frozen=True)
class Progress:
    """Seconds since the first ModelDeployment was sent. `ready`: the operator's condition, for the script all Deployments available."""

    created: float
    written: float
    ready: float


@dataclass(frozen=True)
class Converged:
    """One run of the operator, or of the script (which has no requests to count)."""

    progress: Progress
    cpu_seconds: float
    writes: int = 0
    reads: int = 0
    peak_mib: float = 0.0


@dataclass(frozen=True)
class Rest:
    """What the operator uses when there is nothing to do: for some seconds, and over two resyncs after a restart."""

    seconds: float
    cpu_seconds: float
    writes: int
    mib: float
    resync: processes.Usage
    restart: processes.Usage
    peak_mib: float
    """Of the process that was restarted."""

    @property
    def cpu_percent(self) -> float:
        return 100 * self.cpu_seconds / self.seconds

    @property
    def resync_cpu_seconds(self) -> float:
        """Of one of the two, beyond what idling costs."""
        return max(0.0, (self.resync.cpu_seconds - self.resync.moment * self.cpu_seconds / self.seconds) / 2)


class Eyes:
    """The milestones of one run."""

    def __init__(self, deployments: watches.Watch, own: watches.Watch, children: list[watches.Watch]) -> None:
        self.created = own.milestone(watches.is_there, key=watches.name_of)
        self.ready = own.milestone(watches.has("Ready"), key=watches.name_of)
        self.available = deployments.milestone(watches.has("Available"), key=watches.name_of)
        self._children = [(watch.milestone(watches.is_there, key=watches.name_of)) for watch in children]

    async def written(self, count: int) -> float:
        """The last child of them all."""
        counts = [count * each for each in population.CHILDREN.values()]
        found = [await eye.reached(many, WITHIN_SECONDS) for eye, many in zip(self._children, counts, strict=True)]
        return max(found)


@contextlib.asynccontextmanager
async def eyes(kubeconfig: str) -> AsyncIterator[Eyes]:
    async with contextlib.AsyncExitStack() as stack:
        found = {
            kind: await stack.enter_async_context(watches.watch(kubeconfig, kind, lab.NAMESPACE))
            for kind in (MODEL_DEPLOYMENT, *population.CHILDREN)
        }
        yield Eyes(found[DEPLOYMENT], found[MODEL_DEPLOYMENT], [found[kind] for kind in population.CHILDREN])


async def converge(cluster: lab.Lab, running: processes.Operator, count: int) -> Converged:
    """From no ModelDeployment to `count` that are Ready."""
    async with eyes(cluster.kubeconfig) as seen:
        before = running.usage()
        done = await create(cluster, [plain.Item(item, []) for item in population.model_deployments(count)])
        ready = await seen.ready.reached(count, WITHIN_SECONDS)
        used = running.usage().since(before)
        progress = Progress(max(seen.created.moments.values()), await seen.written(count), ready)
    return Converged(_since(done.began, progress), used.cpu_seconds, used.writes, used.reads, running.memory("VmHWM"))


async def script(cluster: lab.Lab, tracking_uri: str, count: int) -> Converged:
    """The same children, written and left to themselves."""
    platform = msgspec.convert(processes.configuration(tracking_uri), Settings).platform()
    items = [plain.Item(item, population.children_of(item, platform)) for item in population.model_deployments(count)]
    async with eyes(cluster.kubeconfig) as seen:
        done = await create(cluster, items)
        ready = await seen.available.reached(count, WITHIN_SECONDS)
        progress = Progress(max(seen.created.moments.values()), await seen.written(count), ready)
    return Converged(_since(done.began, progress), done.cpu_seconds)


async def create(cluster: lab.Lab, items: list[plain.Item]) -> plain.Done:
    """Run the plain script in a process of its own."""
    file = cluster.folder / "work.json"
    file.write_bytes(msgspec.json.encode(plain.Work(cluster.kubeconfig, WORKERS, items)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.plain", str(file),
        cwd=lab.ROOT / "hack", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout  # noqa: S101 - for the type checker: it is a pipe
    await process.stdout.readline()
    answer, _ = await process.communicate(b"go\n")
    if process.returncode:
        raise console.Failure("the plain script failed; see above")
    return msgspec.json.decode(answer, type=plain.Done)


def rest(cluster: lab.Lab, running: processes.Operator, seconds: float) -> tuple[float, float, int, float]:
    """Nothing happens, for so many seconds: CPU seconds, writes, MiB."""
    running.wait_until_quiet(WITHIN_SECONDS)
    before = running.usage()
    time.sleep(seconds)
    used = running.usage().since(before)
    return used.moment, used.cpu_seconds, used.writes, running.memory()


def two_resyncs(running: processes.Operator) -> processes.Usage:
    """From the moment at which nothing is to be done, over two resyncs, to when nothing is to be done again."""
    key = ("list", MODEL_DEPLOYMENT.plural)
    before = running.usage()
    while running.usage().requests[key] < before.requests[key] + 2:
        time.sleep(0.5)
    running.wait_until_quiet(WITHIN_SECONDS)
    return running.usage().since(before)


def _since(began: float, progress: Progress) -> Progress:
    return Progress(progress.created - began, progress.written - began, progress.ready - began)


def run_operator(name: str, mlflow: registry.Mlflow, count: int, *, with_rest: bool) -> tuple[Converged, Rest | None]:
    with lab.new(name) as cluster:
        with processes.operator(cluster, mlflow.uri) as running:
            converged = asyncio.run(converge(cluster, running, count))
            idle = rest(cluster, running, IDLE_SECONDS) if with_rest else None
        if idle is None:
            return converged, None
        with processes.operator(cluster, mlflow.uri, resyncSeconds=RESYNC_SECONDS) as running:
            restart = running.usage()
            resync = two_resyncs(running)
            return converged, Rest(*idle, resync=resync, restart=restart, peak_mib=running.memory("VmHWM"))


def run_script(name: str, mlflow: registry.Mlflow, count: int) -> Converged:
    with lab.new(name) as cluster:
        return asyncio.run(script(cluster, mlflow.uri, count))
