"""The API server refuses, throttles or holds up everything in one namespace: there it is asked politely, elsewhere nobody notices."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable

import pytest

import simulated_time
from a_controller import FRAUD, a_controller
from fake_cluster import FakeCluster
from moorage_operator import errors
from moorage_operator.core.kinds import DEPLOYMENT, MODEL_DEPLOYMENT, Manifest, Ref, ref_of
from moorage_operator.telemetry import Metrics
from moorage_operator.workqueue import SLOW_SECONDS

STORM, CALM = "storm", "calm"
IN_STORM, IN_CALM = 40, 10
BEGIN = 30.0
WRITE_SECONDS = 0.05
RETRY_AFTER = 20.0
SECONDS = 120

Weather = Callable[[Ref], float]
"""How many seconds a write takes in the storm; or it raises what the server answers."""


def throttled(ref: Ref) -> float:
    raise errors.Throttled(f"apply {ref}: too many requests", status=429, retry_after=RETRY_AFTER)


def conflicting(ref: Ref) -> float:
    raise errors.Conflict(f"apply {ref}: the object has been modified", status=409)


def invalid(ref: Ref) -> float:
    raise errors.Invalid(f"apply {ref}: spec.replicas: Invalid value", status=422)


def slow(ref: Ref) -> float:
    return 9.0


def fails_late(ref: Ref) -> float:
    return 10.0


def fair(ref: Ref) -> float:
    return WRITE_SECONDS


class Stormy(FakeCluster):
    """Deployments in the namespace of the storm fare by the weather, all other writes take the usual time."""

    def __init__(self, weather: Weather) -> None:
        super().__init__(now=simulated_time.now)
        self.tries: dict[str, list[float]] = defaultdict(list)
        self.written: dict[str, float] = {}
        """When the Deployment of each was last written, by the name of the ModelDeployment."""
        self._weather = weather

    async def apply(self, manifest: Manifest, *, manager: str = "moorage", subresource: str = "") -> Manifest:
        ref, clock = ref_of(manifest), asyncio.get_running_loop().time
        model = manifest["metadata"].get("labels", {}).get("moorage.dev/deployment", "")
        seconds = WRITE_SECONDS
        if ref.kind is DEPLOYMENT and ref.namespace == STORM:
            self.tries[model].append(clock())
            seconds = self._weather(ref)
        await asyncio.sleep(seconds)
        if self._weather is fails_late and seconds > WRITE_SECONDS:
            raise errors.Unreachable(f"apply {ref}: failed calling webhook: deadline exceeded", status=500)
        if ref.kind is DEPLOYMENT:
            self.written[model] = clock()
        return await super().apply(manifest, manager=manager, subresource=subresource)


def a_model(name: str, namespace: str) -> Manifest:
    return FRAUD | {"metadata": {"name": name, "namespace": namespace}}


async def seconds_to_change(cluster: Stormy, name: str, replicas: int) -> float:
    """From a changed spec to its Deployment."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    ref = Ref(MODEL_DEPLOYMENT, CALM, name)
    cluster.edit(ref, lambda manifest: manifest["spec"].update(replicas=replicas))
    while cluster.written[name] < begin:
        await asyncio.sleep(0.01)
    return cluster.written[name] - begin


async def play(weather: Weather) -> tuple[Stormy, list[float], list[str]]:
    """The storm begins, then the calm ones are changed in turn for two minutes: how long each took, and what the probe said."""
    cluster = Stormy(weather)
    controller = a_controller(cluster, Metrics())
    for number in range(IN_CALM):
        cluster.add(a_model(f"calm-{number}", CALM))
    leading = asyncio.create_task(controller.lead())
    await asyncio.sleep(BEGIN)
    for number in range(IN_STORM):
        cluster.add(a_model(f"storm-{number}", STORM))
    found, said = [], []
    for number in range(SECONDS):
        found.append(await seconds_to_change(cluster, f"calm-{number % IN_CALM}", 2 + number // IN_CALM % 2))
        said.append(controller.problem())
        await asyncio.sleep(1 - found[-1] % 1)
    leading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await leading
    return cluster, found, said


@functools.cache
def played(weather: Weather) -> tuple[Stormy, list[float], list[str]]:
    return simulated_time.run(play(weather))


def p50_and_p99(seconds: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return cuts[49], cuts[98]


@pytest.mark.parametrize("weather", [throttled, conflicting, invalid, slow, fails_late])
def test_a_storm_in_one_namespace_is_hardly_noticed_in_another(weather: Weather) -> None:
    before = p50_and_p99(played(fair)[1])
    _, seconds, said = played(weather)
    during = p50_and_p99(seconds)

    print(f"p50 and p99 of {SECONDS} changes: {before} without, {during} with {weather.__name__}")  # noqa: T201
    # Until the workers have left each slow one to itself, they are late for the others once.
    late = SLOW_SECONDS if weather in (slow, fails_late) else 0.0
    assert during[0] <= 1.2 * before[0]
    assert during[1] <= 1.2 * before[1] + late
    assert not any(said)


@pytest.mark.parametrize("weather", [throttled, conflicting, invalid, fails_late])
def test_each_one_in_the_storm_is_tried_more_and_more_seldom(weather: Weather) -> None:
    tries = played(weather)[0].tries

    assert len(tries) == IN_STORM
    assert max(map(len, tries.values())) < 40, "a pass that is in conflict looks, and tries again by itself"
    after_a_minute = [len([moment for moment in moments if moment > BEGIN + 60]) for moments in tries.values()]
    assert statistics.mean(after_a_minute) <= 8


def test_what_the_server_says_about_the_next_try_is_obeyed() -> None:
    tries = played(throttled)[0].tries

    waits = [after - before for moments in tries.values() for before, after in itertools.pairwise(moments)]
    assert min(waits) >= RETRY_AFTER - 0.001


def test_all_that_are_slow_get_there() -> None:
    cluster = played(slow)[0]

    assert len(cluster.tries) == IN_STORM
    assert max(map(len, cluster.tries.values())) <= 2, "made, and labelled as stable"
    assert max(cluster.written[f"storm-{number}"] for number in range(IN_STORM)) < BEGIN + 30
