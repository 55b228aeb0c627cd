"""The running controller on the in-memory adapters: from an event to a served model, and what its metrics say."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

import pytest
from prometheus_client import generate_latest

import simulated_time
from a_controller import FRAUD, SETTINGS, a_controller, a_registry
from fake_cluster import FakeCluster
from moorage_operator.core import decide, names
from moorage_operator.core.actions import Decision
from moorage_operator.core.kinds import DEPLOYMENT, MODEL_DEPLOYMENT, Ref
from moorage_operator.core.names import Key
from moorage_operator.core.observed import Observed
from moorage_operator.core.spec import Spec
from moorage_operator.telemetry import Metrics
from moorage_operator.workqueue import LONGEST_BACKOFF_SECONDS


def test_an_event_becomes_a_revision_and_a_metric_that_goes_with_its_model_deployment() -> None:
    async def play() -> None:
        cluster, metrics = FakeCluster(), Metrics()
        controller = a_controller(cluster, metrics)
        leading = asyncio.create_task(controller.lead())
        cluster.add(FRAUD)
        await asyncio.sleep(20)
        made = [item["metadata"]["labels"]["moorage.dev/model-version"] async for item in cluster.list(DEPLOYMENT)]
        assert made == ["1"]
        assert b'model_version="1"' in generate_latest(metrics.registry)
        assert controller.problem() == ""
        cluster.remove(Ref(MODEL_DEPLOYMENT, "payments", "fraud"))
        await asyncio.sleep(20)
        assert b'model_version="1"' not in generate_latest(metrics.registry)
        leading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leading

    simulated_time.run(play())


def test_what_the_last_operator_did_not_tell_the_registry_is_told_by_the_next() -> None:
    notice = {"name": "default", "model": "detector", "tags": "Pending"}
    outcome = {"revision": "fraud-v1-x", "modelVersion": "1", "result": "Promoted", "at": "2026-01-01T00:00:00Z"}
    status = {"observedGeneration": 1, "history": [outcome | {"registry": notice}]}

    async def play() -> None:
        cluster, registry = FakeCluster(), a_registry()
        controller = a_controller(cluster, Metrics(), registry)
        cluster.add(FRAUD)
        ref = Ref(MODEL_DEPLOYMENT, "payments", "fraud")
        cluster.edit(ref, lambda manifest: manifest.update(status=status), manager="moorage", subresource="status")
        leading = asyncio.create_task(controller.lead())
        await asyncio.sleep(20)
        live = await cluster.get(ref)
        assert live
        assert live["status"]["history"] == [outcome | {"registry": notice | {"tags": "Done"}}]
        assert registry.tags_of("detector", "1") == {
            "moorage.rollout": "promoted", "moorage.rollout.deployment": "payments/fraud"
        }  # fmt: skip
        told = len(registry.changes)
        await asyncio.sleep(2 * SETTINGS.resync_seconds)
        assert len(registry.changes) == told
        leading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leading

    simulated_time.run(play())


def test_a_resync_looks_at_each_model_deployment_without_a_crowd_in_the_queue() -> None:
    async def play() -> None:
        cluster, metrics = FakeCluster(), Metrics()
        controller = a_controller(cluster, metrics)
        for number in range(60):
            cluster.add(FRAUD | {"metadata": {"name": f"fraud-{number}", "namespace": "payments"}})
        leading = asyncio.create_task(controller.lead())
        await asyncio.sleep(0.6 * SETTINGS.resync_seconds)
        passes = [_passes(metrics)]
        for _ in range(int(0.8 * SETTINGS.resync_seconds)):
            await asyncio.sleep(1)
            passes.append(_passes(metrics))
        leading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leading

        assert passes[-1] - passes[0] == 60 + 1, "each of them, and their namespace's router"
        assert max(after - before for before, after in itertools.pairwise(passes)) <= 15

    simulated_time.run(play())


def test_a_deletion_that_no_event_told_of_is_found_by_the_resync() -> None:
    async def play() -> None:
        cluster, metrics = FakeCluster(), Metrics()
        controller = a_controller(cluster, metrics)
        for number in range(3):
            cluster.add(FRAUD | {"metadata": {"name": f"fraud-{number}", "namespace": "payments"}})
        leading = asyncio.create_task(controller.lead())
        await asyncio.sleep(20)
        deaf_to(cluster)
        cluster.remove(Ref(MODEL_DEPLOYMENT, "payments", "fraud-1"))
        await asyncio.sleep(20)
        assert _ghosts(metrics) == 0
        assert controller.index.model_deployment(Key("payments", "fraud-1"))
        await asyncio.sleep(1.2 * SETTINGS.resync_seconds)
        assert _ghosts(metrics) == 1
        assert {key.name for key, _ in controller.index.model_deployments()} == {"fraud-0", "fraud-2"}
        await asyncio.sleep(2 * SETTINGS.resync_seconds)
        assert _ghosts(metrics) == 1
        leading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leading

    simulated_time.run(play())


def deaf_to(cluster: FakeCluster) -> None:
    """No event arrives any more."""
    cluster._watchers.clear()


def test_one_that_always_fails_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[float] = []
    right = decide.decide

    def poisoned(spec: Spec, observed: Observed, *rest: Any) -> Decision:
        if observed.owner.name == "poison":
            tried.append(asyncio.get_running_loop().time())
            raise ZeroDivisionError("nobody expects it")
        return right(spec, observed, *rest)

    async def play() -> None:
        monkeypatch.setattr(decide, "decide", poisoned)
        cluster, metrics = FakeCluster(), Metrics()
        controller = a_controller(cluster, metrics)
        good = {f"fraud-{number}" for number in range(20)}
        for name in ("poison", *good):
            cluster.add(FRAUD | {"metadata": {"name": name, "namespace": "payments"}})
        leading = asyncio.create_task(controller.lead())
        await asyncio.sleep(10)
        assert {item["metadata"]["labels"][names.DEPLOYMENT] async for item in cluster.list(DEPLOYMENT)} == good
        assert await _untold(cluster) == {"poison"}
        for _ in range(60):
            await asyncio.sleep(10)
            assert controller.problem() == ""
        leading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leading

        waits = [after - before for before, after in itertools.pairwise(tried)]
        assert len(tried) < 40, "with full jitter, up to 2 minutes apart, and once for each resync"
        assert max(waits[:5]) < max(waits[-5:]) <= LONGEST_BACKOFF_SECONDS
        assert metrics.registry.get_sample_value("moorage_reconcile_total", {"result": "ZeroDivisionError"}) == len(
            tried
        )
        told = [record for record in caplog.records if "a bug in the operator" in record.message]
        assert len(told) == len(tried)
        assert all("payments/poison" in record.message and record.exc_info for record in told)

    simulated_time.run(play())


async def _untold(cluster: FakeCluster) -> set[str]:
    """The ModelDeployments that no pass has come to an end for."""
    return {
        item["metadata"]["name"] async for item in cluster.list(MODEL_DEPLOYMENT) if "conditions" not in item["status"]
    }


def _passes(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("moorage_reconcile_total", {"result": "ok"}) or 0.0


def _ghosts(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("moorage_resync_ghosts_total")
